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

from .layers import (
    conv_bn_relu,
    global_average,
    resize_like,
    separable_conv,
    spread_like,
)
from .network import SegmentationNetwork, initialize
from .resnet import ResNet
from .xception import Xception65

WIDTH = 256
"""Channels of the pyramid and the decoder."""


@dataclass(frozen=True, kw_only=True)
class Head:
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


HEADS = {
    "plain": Head(),
    "mkd": Head(separable=True, project_kernel=3),
    "gta": Head(
        rates=(12, 24, 36),
        project_kernel=3,
        low_level=256,
        bias=True,
        project_dropout=0.1,
        fusion_dropout=0.1,
    ),
    "xception": Head(separable=True, project_dropout=0.1),
}
"""Name -> head; the table in this module's docstring."""


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

    def __init__(self, channels: int, head: Head) -> None:
        super().__init__()
        self.point = conv_bn_relu(channels, WIDTH, 1)
        self.atrous = nn.ModuleList(
            separable_conv(channels, WIDTH, dilation=rate)
            if head.separable
            else conv_bn_relu(channels, WIDTH, 3, dilation=rate)
            for rate in head.rates
        )
        self.pool = ImagePooling(channels)
        self.project = conv_bn_relu((len(head.rates) + 2) * WIDTH, WIDTH, head.project_kernel)
        self.dropout = _dropout(head.project_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N,256,h,w) of (N,C,h,w)."""
        maps = [self.point(x), *(branch(x) for branch in self.atrous), self.pool(x)]
        return self.dropout(self.project(torch.cat(maps, dim=1)))


class Decoder(nn.Module):
    """Upsample the pyramid's map to stride 4, join the low-level feature, mix twice."""

    fusion = ("fuse",)

    def __init__(self, channels: tuple[int, ...], head: Head) -> None:
        super().__init__()
        self.pyramid = AtrousPyramid(channels[-1], head)
        self.low_level = conv_bn_relu(channels[0], head.low_level, 1, bias=head.bias)
        layers: list[nn.Module] = []
        for inputs in (WIDTH + head.low_level, WIDTH):
            if head.separable:
                layers.append(separable_conv(inputs, WIDTH))
            else:
                layers.append(conv_bn_relu(inputs, WIDTH, 3, bias=head.bias))
            layers.append(_dropout(head.fusion_dropout))
        self.fuse = nn.Sequential(*layers)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return (N,256,ceil(H/4),ceil(W/4)); the first feature is at stride 4."""
        low_level = self.low_level(features[0])
        deep = resize_like(self.pyramid(features[-1]), low_level)
        return self.fuse(torch.cat((deep, low_level), dim=1))


def _dropout(probability: float) -> nn.Module:
    """Return a layer that drops channels, or nothing."""
    return nn.Dropout2d(probability) if probability else nn.Identity()


def _assemble(backbone: ResNet | Xception65, head: Head, num_classes: int) -> SegmentationNetwork:
    """Return the network of a backbone and a head, initialised."""
    decoder = Decoder(backbone.channels, head)
    classifier = nn.Conv2d(WIDTH, num_classes, 1)
    initialize(decoder)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)  # pyright: ignore[reportArgumentType]
    return SegmentationNetwork(
        backbone, decoder, classifier, num_classes=num_classes, output_stride=4
    )


def _with_dropout(head: Head, dropout: float | None) -> Head:
    """Return the head with the probability in both places, unless it is None."""
    if dropout is None:
        return head
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1; got {dropout}")
    return replace(head, project_dropout=dropout, fusion_dropout=dropout)


def deeplabv3plus(
    depth: int,
    num_classes: int,
    *,
    head: str = "plain",
    stem: str | None = None,
    encoder_stride: int | None = None,
    dropout: float | None = None,
) -> SegmentationNetwork:
    """Return DeepLabv3+ on a ResNet.

    Args:
        depth: 50 or 101.
        num_classes: number of classes.
        head: "plain", "mkd" or "gta"; sets stem and stride too. GTA-Seg's representation head,
            which no loss uses, is left out.
        stem: "torchvision" (7 x 7), "deep32" (ResNet-C, MKD) or "deep64" (U2PL, GTA-Seg, timm's
            `resnet101s`); None: the head's own. The weights must have the same stem.
        encoder_stride: 16 or 8; None: the head's own.
        dropout: probability of dropping a channel after pyramid and fusion; None: the head's own.
    """
    stems = {"torchvision": 0, "deep32": 32, "deep64": 64}
    own = {"plain": ("torchvision", 16), "mkd": ("deep32", 16), "gta": ("deep64", 8)}
    if head not in own:
        raise ValueError(f"head must be one of {', '.join(own)}; got {head!r}")
    stem = stem or own[head][0]
    if stem not in stems:
        raise ValueError(f"stem must be one of {', '.join(stems)}; got {stem!r}")
    backbone = ResNet(
        depth,
        stride=own[head][1] if encoder_stride is None else encoder_stride,
        stem_width=stems[stem],
        multi_grid=(2, 2, 4) if head == "gta" else None,
        zero_init_residual=head == "gta",
    )
    return _assemble(backbone, _with_dropout(HEADS[head], dropout), num_classes)


def deeplabv3plus_xception65(
    num_classes: int, *, dropout: float | None = None
) -> SegmentationNetwork:
    """Return DeepLabv3+ on Xception-65 with encoder stride 16.

    Args:
        num_classes: number of classes.
        dropout: probability of dropping a channel after pyramid and fusion; None: 0.1 after the
            pyramid only.
    """
    network = _assemble(Xception65(), _with_dropout(HEADS["xception"], dropout), num_classes)
    network.normalization = "half"
    return network
