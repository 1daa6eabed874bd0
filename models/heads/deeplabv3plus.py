"""DeepLabv3+: atrous spatial pyramid pooling and a decoder at stride 4, in the papers' variants.

| head     | of                  | stem         | stride | ASPP rates | low level |
|----------|---------------------|--------------|--------|------------|-----------|
| plain    | one-way consistency | 7 x 7        | 16     | 6, 12, 18  | 48        |
| mkd      | MKD                 | deep, 32-64  | 16     | 6, 12, 18  | 48        |
| gta      | GTA-Seg             | deep, 64-128 | 8      | 12, 24, 36 | 256       |
| xception | SimpleBaseline      | Xception-65  | 16     | 6, 12, 18  | 48        |

mkd and xception use separable convolutions, mkd and gta end the pyramid with a 3 x 3 convolution
(the others 1 x 1), gta has the multi-grid (2,2,4).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..layers import (
    conv_bn_relu,
    global_average,
    resize_like,
    separable_conv,
    spread_like,
)
from ..network import Encoder, initialize
from .head import HEADS, Head

WIDTH = 256
"""Channels of the pyramid and the decoder."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What distinguishes the papers' decoders; see the module's table."""

    rates: tuple[int, ...] = (6, 12, 18)
    separable: bool = False
    project_kernel: int = 1
    low_level: int = 48
    bias: bool = False
    """Give the low-level and fusion convolutions a bias, redundant before a batch norm."""
    project_dropout: float = 0.0
    """Probability of dropping a channel after the pyramid."""
    fusion_dropout: float = 0.0
    """Probability of dropping a channel after each fusion convolution."""


VARIANTS = {
    "plain": Variant(),
    "mkd": Variant(separable=True, project_kernel=3),
    "gta": Variant(
        rates=(12, 24, 36),
        project_kernel=3,
        low_level=256,
        bias=True,
        project_dropout=0.1,
        fusion_dropout=0.1,
    ),
    "xception": Variant(separable=True, project_dropout=0.1),
}
"""Name -> variant; the table in this module's docstring."""


class ImagePooling(nn.Module):
    """Average over the image, mix channels, spread back over the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = conv_bn_relu(channels, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N,256,h,w) of (N,C,h,w).

        Raises ValueError for one image under batch statistics: the variance of one value.
        """
        norm = self.mix[1]
        if x.shape[0] == 1 and type(norm) is nn.BatchNorm2d and norm.training:
            raise ValueError(
                "image pooling has no batch statistics with batch_size 1; use batch_size 2 or more"
            )
        return spread_like(self.mix(global_average(x)), x)


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling (ASPP)."""

    def __init__(self, channels: int, variant: Variant) -> None:
        super().__init__()
        self.point = conv_bn_relu(channels, WIDTH, 1)
        self.atrous = nn.ModuleList(
            separable_conv(channels, WIDTH, dilation=rate)
            if variant.separable
            else conv_bn_relu(channels, WIDTH, 3, dilation=rate)
            for rate in variant.rates
        )
        self.pool = ImagePooling(channels)
        self.project = conv_bn_relu((len(variant.rates) + 2) * WIDTH, WIDTH, variant.project_kernel)
        self.dropout = _dropout(variant.project_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N,256,h,w) of (N,C,h,w)."""
        maps = [self.point(x), *(branch(x) for branch in self.atrous), self.pool(x)]
        return self.dropout(self.project(torch.cat(maps, dim=1)))


class Decoder(nn.Module):
    """Upsample the pyramid's map to stride 4, join the low-level feature, mix twice."""

    fusion = ("fuse",)

    def __init__(self, channels: tuple[int, ...], variant: Variant) -> None:
        super().__init__()
        self.pyramid = AtrousPyramid(channels[-1], variant)
        self.low_level = conv_bn_relu(channels[0], variant.low_level, 1, bias=variant.bias)
        layers: list[nn.Module] = []
        for inputs in (WIDTH + variant.low_level, WIDTH):
            if variant.separable:
                layers.append(separable_conv(inputs, WIDTH))
            else:
                layers.append(conv_bn_relu(inputs, WIDTH, 3, bias=variant.bias))
            layers.append(_dropout(variant.fusion_dropout))
        self.fuse = nn.Sequential(*layers)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return (N,256,ceil(H/4),ceil(W/4)); the first feature is at stride 4."""
        low_level = self.low_level(features[0])
        deep = resize_like(self.pyramid(features[-1]), low_level)
        return self.fuse(torch.cat((deep, low_level), dim=1))


def _dropout(probability: float) -> nn.Module:
    """Return a layer that drops channels, or nothing."""
    return nn.Dropout2d(probability) if probability else nn.Identity()


def with_dropout(variant: Variant, dropout: float | None) -> Variant:
    """Return the variant with the probability in both places, unless it is None."""
    if dropout is None:
        return variant
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1; got {dropout}")
    return replace(variant, project_dropout=dropout, fusion_dropout=dropout)


def assemble(encoder: Encoder, variant: Variant, num_classes: int) -> Head:
    """Return a variant's decoder and classifier for an encoder, initialised."""
    decoder = Decoder(encoder.channels, variant)
    classifier = nn.Conv2d(WIDTH, num_classes, 1)
    initialize(decoder)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)  # pyright: ignore[reportArgumentType]
    return Head(decoder, classifier, encoder.reductions[0])


@HEADS.register("deeplabv3plus")
def pyramid(
    encoder: Encoder,
    num_classes: int,
    *,
    variant: str = "plain",
    dropout: float | None = None,
    encoder_stride: int = 16,
) -> Head:
    """Return DeepLabv3+'s pyramid and decoder for an encoder's first and last feature.

    variant: a row of this module's table; dropout: probability of dropping a channel after pyramid
        and fusion; encoder_stride: that of the last feature, asked of the encoder.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}; got {variant!r}")
    return assemble(encoder, with_dropout(VARIANTS[variant], dropout), num_classes)
