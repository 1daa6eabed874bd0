"""DeepLabv2: a dilated ResNet and the sum of parallel 3 x 3 classifiers.

The network of DMT, and of the one-way consistency and SimpleBaseline tables. Logits at stride 8.
"""

from torch import Tensor, nn

from ..network import Encoder
from .head import HEADS, Head

RATES = (6, 12, 18, 24)
"""Dilations of the classifiers."""


class Coarsest(nn.Module):
    """Pass on the coarsest feature: a decoder without parameters."""

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return the last of the features."""
        return features[-1]


class ParallelClassifiers(nn.Module):
    """Sum 3 x 3 convolutions of several dilations."""

    def __init__(self, channels: int, num_classes: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate) for rate in rates
        )
        for conv in self.convs:
            nn.init.normal_(conv.weight, std=0.01)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, feature: Tensor) -> Tensor:
        """Return logits (N,C,h,w) of a feature (N,2048,h,w)."""
        first, *others = self.convs
        logits = first(feature)
        for conv in others:
            logits = logits + conv(feature)
        return logits


@HEADS.register("deeplabv2")
def parallel(
    encoder: Encoder, num_classes: int, *, branches: int = 4, encoder_stride: int = 8
) -> Head:
    """Return DeepLabv2's classifiers for an encoder's coarsest feature.

    branches: 4 (the papers), or 2: the released codes return inside their summation and so use the
        first two classifiers only. encoder_stride: that of the feature, asked of the encoder.
    """
    if branches not in (2, 4):
        raise ValueError(f"branches must be 4, or 2 as in the released codes; got {branches}")
    classifier = ParallelClassifiers(encoder.channels[-1], num_classes, RATES[:branches])
    return Head(Coarsest(), classifier, encoder.reductions[-1])
