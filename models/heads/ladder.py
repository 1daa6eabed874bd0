"""SwiftNet (single scale): an ImageNet ResNet, spatial pyramid pooling and a light ladder.

Orsic and Segvic, as section 4 of the one-way consistency paper uses it: 128 decoder channels,
logits at stride 4. The paper taps stages before their last ReLU, the released codes behind it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import bn_relu_conv, cast_all, resize_like
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
        pooled = []
        for cells, level in zip(self.grids, self.levels, strict=True):
            # Cells are about square: as many in width as the aspect ratio asks for.
            grid = (cells, max(1, round(cells * width / height)))
            pooled.append(level(F.adaptive_avg_pool2d(x, grid)))
        # In float32: the gradient of a cell is a sum over hundreds of pixels.
        wide = cast_all(pooled, torch.float32)
        spread = cast_all([resize_like(level, x) for level in wide], pooled[0].dtype)
        return self.mix(torch.cat([x, *spread], dim=1))


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
            x = blend(resize_like(x, feature) + skip(feature))
        return self.finish(x)


@HEADS.register("swiftnet")
def ladder(encoder: Encoder, num_classes: int) -> Head:
    """Return SwiftNet's pyramid and ladder for an encoder's features, coarse to fine."""
    decoder = LadderDecoder(encoder.channels)
    classifier = nn.Conv2d(WIDTH, num_classes, 1)
    initialize(decoder)
    initialize(classifier)
    return Head(decoder, classifier, encoder.reductions[0])
