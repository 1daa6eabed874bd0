"""SwiftNet (single scale): an ImageNet ResNet, spatial pyramid pooling and a light ladder.

Orsic and Segvic, as section 4 of the one-way consistency paper uses it: 128 decoder channels,
logits at stride 4. The paper taps stages before their last ReLU, the released codes behind it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ...kernels.layers.pyramid import average_grids, join_levels
from ...kernels.layers.resize_add import resize_add
from ..layers import bn_relu_conv
from ..network import Encoder, initialize
from .head import HEADS, Head

WIDTH = 128
"""Channels of the decoder."""


class SpatialPyramidPooling(nn.Module):
    """Concatenate a map with its averages on grids of 8, 4 and 2 cells in height, and mix them."""

    grids = (8, 4, 2)

    def __init__(self, channels: int) -> None:
        super().__init__()
        level = WIDTH // len(self.grids)
        self.reduce = bn_relu_conv(channels, WIDTH, 1)
        self.levels = nn.ModuleList(bn_relu_conv(WIDTH, level, 1) for _ in self.grids)
        self.mix = bn_relu_conv(WIDTH + level * len(self.grids), WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N,128,h,w) of (N,C,h,w)."""
        x = self.reduce(x)
        height, width = x.shape[-2:]
        x, *means = _averages(x, [(cells, _across(cells, height, width)) for cells in self.grids])
        levels = [level(mean) for level, mean in zip(self.levels, means, strict=True)]
        return self.mix(join_levels(x, levels))


def _across(cells: int, height: int, width: int) -> int:
    """Return how many cells in width make about squares of `cells` in height: at least 1, and the
    even number of two that are as near. In whole numbers, which an export can write down."""
    least, rest = cells * width // height, cells * width % height
    twice = 2 * rest + least % 2
    across: Any = torch.sym_max(1, least + twice // (height + 1))
    return across


def _averages(x: Tensor, grids: list[tuple[int, int]]) -> tuple[Tensor, ...]:
    """Return (N,C,h,w) and its averages (N,C,*grid) on some grids.

    An export knows no averages whose number of cells follows from the size; there they are two
    products with matrices.
    """
    if torch.compiler.is_exporting():
        return x, *(_exported_average(x, grid) for grid in grids)
    return average_grids(x, grids)


def _exported_average(x: Tensor, grid: tuple[int, int]) -> Tensor:
    rows, columns = (_shares(x, dim, cells) for dim, cells in zip((-2, -1), grid, strict=True))
    return rows @ x @ columns.T


def _shares(x: Tensor, dim: int, cells: int) -> Tensor:
    """Return what each place along an axis is of each cell's average, (cells, length)."""
    length = x.shape[dim]
    cell = torch.arange(cells, device=x.device)[:, None]
    place = torch.arange(length, device=x.device)[None]
    start, end = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
    return ((place >= start) & (place < end)).to(x.dtype) / (end - start)


class LadderDecoder(nn.Module):
    """Upsample pooled features in three steps, adding a skip connection in each."""

    fusion = ("finish",)

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        *skips, deepest = channels
        self.pyramid = SpatialPyramidPooling(deepest)
        self.skips = nn.ModuleList(bn_relu_conv(skip, WIDTH, 1) for skip in reversed(skips))
        self.blends = nn.ModuleList(bn_relu_conv(WIDTH, WIDTH, 3) for _ in skips)
        self.finish = nn.Sequential(nn.BatchNorm2d(WIDTH), nn.ReLU())

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return (N,128,ceil(H/4),ceil(W/4)) of features at strides 4, 8, 16, 32."""
        *skips, deepest = features
        x = self.pyramid(deepest)
        for feature, skip, blend in zip(reversed(skips), self.skips, self.blends, strict=True):
            x = blend(resize_add(x, skip(feature)))
        return self.finish(x)


@HEADS.register("swiftnet")
def ladder(encoder: Encoder, num_classes: int) -> Head:
    """Return SwiftNet's pyramid and ladder for an encoder's features, coarse to fine."""
    decoder = LadderDecoder(encoder.channels)
    classifier = nn.Conv2d(WIDTH, num_classes, 1)
    initialize(decoder)
    initialize(classifier)
    return Head(decoder, classifier, encoder.reductions[0])
