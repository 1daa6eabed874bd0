"""DPT (dense prediction transformer): four levels of a transformer made a pyramid and fused.

As UniMatch V2 and Depth Anything have it: no batch norms, projections to the widths of the table,
residual units, fusion from coarse to fine. Levels of one stride p (a transformer's) become a
pyramid of p/4, p/2, p and 2p; levels that are a pyramid already are only projected.

Logits lie at an integer stride, 2 or 4: the last fusion enlarges to it, with half-pixel centres
throughout. `official` is the released form: corners aligned, a doubling at the end (8 logits for
each patch), logits enlarged to the image's size inside the network, which takes memory.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ..network import Encoder
from .head import HEADS, Head

WIDTHS = {
    384: (64, (48, 96, 192, 384)),
    768: (128, (96, 192, 384, 768)),
    1024: (256, (256, 512, 1024, 1024)),
}
"""Channels of the encoder -> channels of the fusion, and of the four levels."""


class Residual(nn.Module):
    """Two 3 x 3 convolutions behind ReLUs, and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N,width,h,w)."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    """Add a level to what came from the coarser ones, enlarge, mix."""

    def __init__(self, width: int, first: bool) -> None:
        super().__init__()
        # The coarsest level has nothing to be added to; its unit would get no gradient.
        self.level = None if first else Residual(width)
        self.mixed = Residual(width)
        self.out = nn.Conv2d(width, width, 1)

    def forward(
        self, before: Tensor | None, level: Tensor, size: tuple[int, int], align: bool
    ) -> Tensor:
        """Return (N,width,*size) of the level and of what came before it."""
        x = level if before is None or self.level is None else before + self.level(level)
        x = self.mixed(x)
        if tuple(x.shape[-2:]) != size:
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=align)
        return self.out(x)


class DptDecoder(nn.Module):
    """Make a pyramid of four features, and fuse it."""

    fusion = ("finish",)

    def __init__(self, encoder: Encoder, width: int, widths: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.stride, self.official = stride, not stride
        self.patch = encoder.reductions[0]
        self.project = nn.ModuleList(
            nn.Conv2d(channels, level, 1)
            for channels, level in zip(encoder.channels, widths, strict=True)
        )
        flat = len(set(encoder.reductions)) == 1
        self.resize = nn.ModuleList(_resizers(widths) if flat else (nn.Identity() for _ in widths))
        self.adapt = nn.ModuleList(
            nn.Conv2d(level, width, 3, padding=1, bias=False) for level in widths
        )
        self.fuse = nn.ModuleList(Fusion(width, first=index == 3) for index in range(4))
        self.finish = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return (N,width,h,w) of four features, fine to coarse."""
        layers = zip(features, self.project, self.resize, self.adapt, strict=True)
        levels = [adapt(resize(project(feature))) for feature, project, resize, adapt in layers]
        sizes = [(level.shape[-2], level.shape[-1]) for level in levels]
        rows, columns = features[0].shape[-2:]
        if self.official:
            last = (2 * sizes[0][0], 2 * sizes[0][1])
        else:
            last = (-(-rows * self.patch // self.stride), -(-columns * self.patch // self.stride))
        x = None
        for index in reversed(range(4)):
            size = sizes[index - 1] if index else last
            x = self.fuse[index](x, levels[index], size, self.official)
        return self.finish(x)


class Enlarged(nn.Conv2d):
    """A 1 x 1 classifier whose logits are enlarged to the image, corners aligned."""

    enlarge: float = 1.0

    def forward(self, input: Tensor) -> Tensor:
        """Return (N,C,H,W) of (N,width,h,w)."""
        logits = super().forward(input)
        size = [round(self.enlarge * side) for side in logits.shape[-2:]]
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=True)


def _resizers(widths: tuple[int, ...]) -> list[nn.Module]:
    """Return what makes levels of one stride p those of p/4, p/2, p and 2p."""
    first, second, _, last = widths
    return [
        nn.ConvTranspose2d(first, first, 4, stride=4),
        nn.ConvTranspose2d(second, second, 2, stride=2),
        nn.Identity(),
        nn.Conv2d(last, last, 3, stride=2, padding=1),
    ]


@HEADS.register("dpt")
def dpt(
    encoder: Encoder,
    num_classes: int,
    *,
    stride: int = 2,
    width: int | None = None,
    official: bool = False,
) -> Head:
    """Return DPT for an encoder's four features.

    Args:
        encoder: with four features.
        num_classes: number of classes.
        stride: that of the logits: 2, or 4 without the last enlargement.
        width: channels of the fusion; None: 64, 128 or 256 for encoders of 384, 768 and 1024
            channels, otherwise a quarter of the finest feature's, 64 to 256.
        official: the released form, whose logits have the image's size.

    Raises ValueError for encoders of other than four features and for other strides.
    """
    if len(encoder.channels) != 4:
        raise ValueError(f"dpt takes four features; this encoder has {len(encoder.channels)}")
    if stride not in (2, 4):
        raise ValueError(f"stride of dpt must be 2, or 4; got {stride}")
    usual = (max(64, min(256, encoder.channels[0] // 4)), encoder.channels)
    chosen, widths = WIDTHS.get(encoder.channels[-1], usual)
    flat = len(set(encoder.reductions)) == 1
    width, widths = width or chosen, widths if flat else encoder.channels
    decoder = DptDecoder(encoder, width, widths, 0 if official else stride)
    if official:
        classifier = Enlarged(width, num_classes, 1)
        classifier.enlarge = encoder.reductions[0] / (8 if flat else 2)
        return Head(decoder, classifier, 1)
    # Patches must fill whole logits.
    multiple = encoder.reductions[0] if encoder.reductions[0] % stride == 0 else 28
    return Head(decoder, nn.Conv2d(width, num_classes, 1), stride, multiple=multiple)
