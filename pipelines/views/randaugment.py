"""The strong view "randaugment": some of 16 operations on small images (CIFAR-10), for DMT's chain.

RandAugment (Cubuk et al., 2020) as DMT's released code has it: operations and ranges of ildoonet's
package, Cutout among them, and one magnitude m of an image, drawn from 1 to 10, that takes m / 10
of each range. The operations are Pillow's, on uint8, all images of one operation at once; what
torchvision has for a batch of images that differ in strength is torchvision's. The ranges of shifts
(100 pixels) and Cutout (40) were made for larger images: from magnitude 4 on, a shift leaves
nothing of 32 pixels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tv
from torch import Tensor

from ..registry import VIEWS
from ..strong import Crop, Perturbed, View

LEVELS = 10
"""The greatest magnitude."""
CUTOUT_COLOUR = (125, 123, 114)
"""RGB of what Cutout pastes."""
_SEED = 5
"""What is drawn at a step."""


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """What happens to N images, on the CPU, so that choosing among them waits for no device.

    operation (N, n) int64: numbers into OPERATIONS, in the order in which they act; magnitude (N,)
    int64, 1 to LEVELS; mirrored (N, n) bool: turn, shear or shift the other way; centre (N, n, 2)
    float32: where Cutout lies, (vertical, horizontal) in [0, 1).
    """

    operation: Tensor
    magnitude: Tensor
    mirrored: Tensor
    centre: Tensor

    def __getitem__(self, rows: slice | Tensor) -> "RandAugment":
        return RandAugment(**{name: values[rows] for name, values in vars(self).items()})


class Strength(NamedTuple):
    """Parameters of one operation for n images, on their device."""

    share: Tensor
    """(n, 1, 1, 1) float32: the part of the operation's range."""
    sign: Tensor
    """(n,) float32: 1 or -1."""
    centre: Tensor
    """(n, 2) float32 in [0, 1)."""


Operation = Callable[[Tensor, Strength], Tensor]
"""Turns images (n, H, W, 3) uint8 into others."""


def sample_randaugment(
    batch: int,
    *,
    operations: int = 1,
    magnitudes: tuple[int, int] = (1, LEVELS),
    generator: torch.Generator | None = None,
) -> RandAugment:
    """Draw what happens to `batch` images, with replacement, on the CPU."""
    uniform = torch.rand(batch, operations, 4, generator=generator)
    low, high = magnitudes
    return RandAugment(
        operation=(uniform[..., 0] * len(OPERATIONS)).long(),
        magnitude=torch.randint(low, high + 1, (batch,), generator=generator),
        mirrored=uniform[..., 1] < 0.5,
        centre=uniform[..., 2:],
    )


def randaugment(crop: Tensor, drawn: RandAugment) -> Tensor:
    """Change images (N, H, W, 3) uint8, each by its own operations; returns new ones."""
    crop = crop.clone()
    share = (drawn.magnitude / LEVELS).to(crop.device, non_blocking=True)[:, None, None, None]
    for turn in range(drawn.operation.shape[1]):
        sign = (1 - 2 * drawn.mirrored[:, turn].float()).to(crop.device, non_blocking=True)
        centre = drawn.centre[:, turn].to(crop.device, non_blocking=True)
        for number, operation in enumerate(OPERATIONS.values()):
            rows = (drawn.operation[:, turn] == number).nonzero()[:, 0]
            if len(rows):
                rows = rows.to(crop.device, non_blocking=True)
                strength = Strength(share[rows], sign[rows], centre[rows])
                crop[rows] = operation(crop[rows], strength)
    return crop


@VIEWS.register("randaugment")
class RandAugmentView(View):
    """RandAugment of small crops, which are classified as wholes."""

    moves = True

    def perturb(self, crop: Crop) -> Perturbed:
        """Draw for the batches of all ranks at once, and change these crops by what is theirs."""
        drawn = sample_randaugment(
            crop.total,
            operations=self.settings.randaugment_operations,
            magnitudes=self.settings.randaugment_magnitudes,
            generator=crop.generator(_SEED),
        )
        return Perturbed(strong=self.normalized(randaugment(crop.pixels, drawn[crop.own])))


def autocontrast(crop: Tensor, strength: Strength) -> Tensor:
    """Stretch each channel to all levels."""
    return tv.autocontrast(crop.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def equalize(crop: Tensor, strength: Strength) -> Tensor:
    """Spread the levels of each channel evenly."""
    return tv.equalize(crop.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def invert(crop: Tensor, strength: Strength) -> Tensor:
    """Turn levels round."""
    return 255 - crop


def posterize(crop: Tensor, strength: Strength) -> Tensor:
    """Keep 0 to 4 bits of each level."""
    bits = (4 * strength.share).floor()
    return crop & (256 - 2 ** (8 - bits)).to(torch.uint8)


def solarize(crop: Tensor, strength: Strength) -> Tensor:
    """Turn levels round from a level on, 0 to 256."""
    return torch.where(crop < 256 * strength.share, crop, 255 - crop)


def solarize_add(crop: Tensor, strength: Strength) -> Tensor:
    """Add 0 to 110 levels, then turn those from 128 on round."""
    brighter = (crop + (110 * strength.share).round()).clamp(max=255).to(torch.uint8)
    return torch.where(brighter < 128, brighter, 255 - brighter)


def colour(crop: Tensor, strength: Strength) -> Tensor:
    """Multiply saturation by .1 to 1.9."""
    return _leave(_grey(crop), crop, strength)


def contrast(crop: Tensor, strength: Strength) -> Tensor:
    """Stretch levels about the mean grey by .1 to 1.9."""
    return _leave((_grey(crop).mean((1, 2, 3), keepdim=True) + 0.5).floor(), crop, strength)


def brightness(crop: Tensor, strength: Strength) -> Tensor:
    """Multiply levels by .1 to 1.9."""
    return _leave(torch.zeros((), device=crop.device), crop, strength)


def sharpness(crop: Tensor, strength: Strength) -> Tensor:
    """Move levels away from their smoothed ones by a factor of .1 to 1.9; borders stay."""
    planes = crop.permute(0, 3, 1, 2).float()
    kernel = torch.ones(3, 3, device=crop.device)
    kernel[1, 1] = 5
    inner = F.conv2d(planes, (kernel / 13).expand(3, 1, 3, 3), groups=3)
    planes[..., 1:-1, 1:-1] = (inner + 0.5).floor()
    return _leave(planes.permute(0, 2, 3, 1), crop, strength)


def rotate(crop: Tensor, strength: Strength) -> Tensor:
    """Turn about the centre by up to 30 degrees."""
    angle = math.radians(30) * _signed(strength)
    cos, sin = angle.cos(), angle.sin()
    y, x = crop.shape[1] / 2, crop.shape[2] / 2
    return _resample(
        crop,
        column=(cos, -sin, x - cos * x + sin * y),
        row=(sin, cos, y - sin * x - cos * y),
    )


def shear_x(crop: Tensor, strength: Strength) -> Tensor:
    """Shift each row by up to .3 pixels more than the one above."""
    return _resample(crop, column=(1.0, 0.3 * _signed(strength), 0.0))


def shear_y(crop: Tensor, strength: Strength) -> Tensor:
    """Shift each column by up to .3 pixels more than the one to its left."""
    return _resample(crop, row=(0.3 * _signed(strength), 1.0, 0.0))


def translate_x(crop: Tensor, strength: Strength) -> Tensor:
    """Shift by up to 100 pixels to a side."""
    return _resample(crop, column=(1.0, 0.0, 100 * _signed(strength)))


def translate_y(crop: Tensor, strength: Strength) -> Tensor:
    """Shift by up to 100 pixels up or down."""
    return _resample(crop, row=(0.0, 1.0, 100 * _signed(strength)))


def cutout(crop: Tensor, strength: Strength) -> Tensor:
    """Paste a square with sides of 1 to 41 pixels, cut by the border."""
    side = 40 * strength.share[:, :, 0, 0]
    extent = _constant(crop.shape[1:3], crop)
    first = (strength.centre * extent - side / 2).clamp(min=0).floor()
    (top, left), (bottom, right) = (
        corner[:, :, None, None].unbind(1) for corner in (first, first + side)
    )
    y, x = _places(crop)
    inside = (y >= top) & (y <= bottom) & (x >= left) & (x <= right)
    paste = _constant(CUTOUT_COLOUR, crop).to(torch.uint8)
    return torch.where(inside[..., None], paste, crop)


OPERATIONS: dict[str, Operation] = {
    operation.__name__: operation
    for operation in (
        autocontrast,
        equalize,
        invert,
        rotate,
        posterize,
        solarize,
        solarize_add,
        colour,
        contrast,
        brightness,
        sharpness,
        shear_x,
        shear_y,
        cutout,
        translate_x,
        translate_y,
    )
}
"""The operations by name, in the order of the released code."""


def _signed(strength: Strength) -> Tensor:
    """Return the part of the range to either side, (n, 1, 1)."""
    return strength.share[..., 0] * strength.sign[:, None, None]


def _constant(values: Sequence[int], crop: Tensor) -> Tensor:
    """Bring numbers to the crops' device without waiting for it."""
    return torch.tensor(values).to(crop.device, non_blocking=True)


def _places(crop: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows (H, 1) and columns (1, W)."""
    _, height, width, _ = crop.shape
    y = torch.arange(height, device=crop.device)[:, None]
    return y, torch.arange(width, device=crop.device)[None]


def _grey(crop: Tensor) -> Tensor:
    """Return Pillow's luma, (n, H, W, 1) float32 of whole levels."""
    weights = _constant((19595, 38470, 7471), crop).int()
    return (((crop * weights).sum(-1, keepdim=True) + 0x8000) >> 16).float()


def _leave(base: Tensor, crop: Tensor, strength: Strength) -> Tensor:
    """Go from levels of no effect through the image's by a factor of .1 to 1.9, as Pillow does."""
    factor = 0.1 + 1.8 * strength.share
    return (base + factor * (crop - base)).clamp(0, 255).to(torch.uint8)


Line = tuple[Tensor | float, Tensor | float, Tensor | float]
"""Factors (n, 1, 1) of column and row, and what is added."""


def _resample(
    crop: Tensor, *, column: Line = (1.0, 0.0, 0.0), row: Line = (0.0, 1.0, 0.0)
) -> Tensor:
    """Show at each pixel's centre the pixel at an affine function of it; black outside."""
    count, height, width, _ = crop.shape
    y, x = _places(crop)
    # Pillow counts in 65536ths of a pixel, from the first pixel's centre on; so ties fall alike.
    to_x, to_y = (
        (_fixed(a, crop) * x + _fixed(b, crop) * y + _fixed(c + (a + b) / 2, crop)) >> 16
        for a, b, c in (column, row)
    )
    to_x, to_y = (place.expand(count, height, width) for place in (to_x, to_y))
    inside = (to_x >= 0) & (to_x < width) & (to_y >= 0) & (to_y < height)
    source = to_y.clamp(0, height - 1) * width + to_x.clamp(0, width - 1)
    pixels = crop.flatten(1, 2).gather(1, source.flatten(1)[..., None].expand(-1, -1, 3))
    return torch.where(inside[..., None], pixels.view_as(crop), 0)


def _fixed(value: Tensor | float, crop: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        value = torch.full((), value, device=crop.device)
    return (value * 65536).round().long()
