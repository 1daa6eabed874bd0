"""The light heads: `light`, two convolutions on all levels, and `linear`, one on the last.

What a frozen encoder needs; they cost a hundredth of it. Logits lie at the encoder's finest, or
for `linear` its last, stride: that of the patches of a transformer.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.layers.resize_add import resize_add
from ..layers import conv_bn_relu, resize_like
from ..network import Encoder, initialize
from .head import HEADS, Head


class LevelConvolution(nn.Conv2d):
    """A 1 x 1 convolution of levels, enlarged to the finest one's size and concatenated.

    It is the sum of its parts on each level, enlarged: coarse levels are mixed where they are
    small, and no map of all their channels is ever made.
    """

    # Behind `nn.Conv2d.forward`, which half-precision weights know.
    def _conv_forward(self, input: Any, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return (N,D,h,w) at the size of the first level."""
        finest, *coarser = _by_size(input)
        own, *parts = weight.split([level.shape[1] for level in (finest, *coarser)], dim=1)
        x = F.conv2d(finest, own, bias)
        for level, part in zip(coarser, parts, strict=True):
            x = resize_add(F.conv2d(level, part), x)
        return x


class Joined(nn.Module):
    """Concatenate levels at the finest one's size, and mix them by 1 x 1 and 3 x 3 convolutions."""

    fusion = ("mix",)

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(
            LevelConvolution(sum(channels), width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.mix = conv_bn_relu(width, width, 3)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return (N,width,h,w) at the size of the first feature."""
        return self.mix(self.reduce(features))


def _by_size(levels: tuple[Tensor, ...]) -> list[Tensor]:
    """Concatenate neighbouring levels of one size, as all of a transformer's are."""
    groups: list[list[Tensor]] = []
    for level in levels:
        if groups and groups[-1][0].shape[-2:] == level.shape[-2:]:
            groups[-1].append(level)
        else:
            groups.append([level])
    return [group[0] if len(group) == 1 else torch.cat(group, dim=1) for group in groups]


class Normed(nn.Module):
    """Concatenate the last levels, drop some of their channels, normalise them by the batch."""

    def __init__(self, channels: tuple[int, ...], levels: int, dropout: float) -> None:
        super().__init__()
        self.levels = levels
        self.dropout = nn.Dropout2d(dropout)
        self.norm = nn.BatchNorm2d(sum(channels[-levels:]))

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return (N,D,h,w) at the size of the last feature."""
        last = features[-1]
        maps = [
            level if level.shape[-2:] == last.shape[-2:] else resize_like(level, last)
            for level in features[-self.levels :]
        ]
        return self.norm(self.dropout(torch.cat(maps, dim=1) if len(maps) > 1 else last))


@HEADS.register("light")
def light(encoder: Encoder, num_classes: int, *, width: int = 256) -> Head:
    """Return the light head; width: channels of its two convolutions."""
    decoder = Joined(encoder.channels, width)
    classifier = nn.Conv2d(width, num_classes, 1)
    initialize(decoder)
    initialize(classifier)
    return Head(decoder, classifier, encoder.reductions[0])


@HEADS.register("linear")
def linear(encoder: Encoder, num_classes: int, *, levels: int = 1, dropout: float = 0.1) -> Head:
    """Return the linear head of DINOv3's evaluation.

    Args:
        encoder: any.
        num_classes: number of classes.
        levels: how many of the last features it looks at: 1, or 4 as DINOv2's "+ms".
        dropout: probability of dropping a channel.

    Raises ValueError where the encoder has fewer levels.
    """
    if not 1 <= levels <= len(encoder.channels):
        raise ValueError(f"levels must lie in 1 to {len(encoder.channels)}; got {levels}")
    classifier = nn.Conv2d(sum(encoder.channels[-levels:]), num_classes, 1)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)  # pyright: ignore[reportArgumentType]
    return Head(Normed(encoder.channels, levels, dropout), classifier, encoder.reductions[-1])
