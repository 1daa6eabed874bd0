"""Scale, crop, flip and pad in one gather from images that stay on the device as uint8.

The resident cache decodes a data set once; afterwards a batch of crops is one launch. A crop is
described by integers, as the loaders describe it: the image, scaled to `scaled` pixels, is cut at
`origin` (negative where the crop begins outside of it) and mirrored if `flip`; outside lies
padding. Pixel k of an axis of the scaled image looks at the source coordinate

    s = (k + 1/2) source / scaled

where source pixel i covers [i, i + 1): half-pixel centres. The image is blended with the triangle
filter max(0, 1 - |i + 1/2 - s| / r) over the pixels inside the source, normalised; r = 1 is
bilinear, and with antialiasing r = max(1, source / scaled), as Pillow and torch do. Masks and
confidences take pixel floor(s), exactly: it is an integer division.

Moved per crop pixel: 3 bytes out and, where the scale is 1, 3 bytes in (2 more with a mask).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import IGNORE
from ..dispatch import use_op
from .random_crop_triton import random_crop_op
from .resident import CropPlan, Crops, ResidentImages

__all__ = ["random_crop", "random_crop_reference"]


def random_crop_reference(
    images: ResidentImages,
    plan: CropPlan,
    *,
    fill: Sequence[int] = (0, 0, 0),
    antialias: bool = True,
) -> Crops:
    """Do what `random_crop` does in plain PyTorch: the definition, on any device."""
    size, offset = images.size[plan.index].long(), images.offset[plan.index]
    rows, columns = (_Axis(plan, axis, size[:, axis : axis + 1], antialias) for axis in (0, 1))
    inside = rows.inside[:, :, None] & columns.inside[:, None, :]
    # A pixel's row in the flat buffers is offset + y * width + x.
    base, width = offset[:, None, None], size[:, 1, None, None]
    image = torch.zeros(*inside.shape, 3, device=inside.device)
    for y, vertical in rows.taps():
        for x, horizontal in columns.taps():
            at = base + y[:, :, None] * width + x[:, None, :]
            weight = vertical[:, :, None] * horizontal[:, None, :]
            image += images.pixels[at] * weight[..., None]
    image = (image + 0.5).floor().clamp(0, 255).to(torch.uint8)
    at = base + rows.nearest[:, :, None] * width + columns.nearest[:, None, :]
    colour = torch.tensor(fill, dtype=torch.uint8, device=image.device)
    mask, confidence = images.mask, images.confidence
    return Crops(
        image=torch.where(inside[..., None], image, colour),
        mask=None if mask is None else torch.where(inside, mask[at], IGNORE),
        confidence=None if confidence is None else torch.where(inside, confidence[at], 0),
        window=plan.window,
    )


class _Axis:
    """Where the pixels of one axis of N crops look: integers and fractions, (N, extent) each."""

    def __init__(self, plan: CropPlan, axis: int, source: Tensor, antialias: bool) -> None:
        scaled = plan.scaled[:, axis : axis + 1].long()
        pixel = torch.arange(plan.size[axis], device=scaled.device)
        if axis == 1:
            pixel = torch.where(plan.flip[:, None], plan.size[1] - 1 - pixel, pixel)
        pixel = pixel + plan.origin[:, axis : axis + 1]
        self.source = source
        self.inside = (pixel >= 0) & (pixel < scaled)
        halves = (2 * pixel.clamp(min=0).minimum(scaled - 1) + 1) * source
        self.nearest = halves // (2 * scaled)
        self.fraction = (halves % (2 * scaled)).float() / (2 * scaled)
        shrink = source.float() / scaled
        self.radius = shrink.clamp(min=1) if antialias else torch.ones_like(shrink)

    def taps(self) -> list[tuple[Tensor, Tensor]]:
        """Return pairs of source pixel and weight, each (N, extent), of the filter's taps."""
        first = (self.fraction - self.radius - 0.5).floor() + 1
        count = int((2 * self.radius).ceil().max()) if self.radius.numel() else 0
        pixels, weights = [], []
        for step in range(count):
            pixel = self.nearest + (first + step).long()
            near = 1 - (first + step + 0.5 - self.fraction).abs() / self.radius
            within = (pixel >= 0) & (pixel < self.source)
            pixels.append(pixel.clamp(min=0).minimum(self.source - 1))
            weights.append(torch.where(within, near.clamp(min=0), 0))
        total = torch.stack(weights).sum(0)
        return [(p, w / total) for p, w in zip(pixels, weights, strict=True)]


def random_crop(
    images: ResidentImages,
    plan: CropPlan,
    *,
    fill: Sequence[int] = (0, 0, 0),
    antialias: bool = True,
) -> Crops:
    """Cut a batch of crops out of the resident images, without waiting for the device.

    fill: RGB levels of the padding. antialias: widen the filter where the source is shrunk. The
    plan may lie on the CPU; it is moved. No gradient.

    Raises ValueError for a fill that is no colour.
    """
    if len(fill) != 3 or not all(0 <= level <= 255 for level in fill):
        raise ValueError(f"fill must be three levels from 0 to 255; got {fill}")
    plan = plan.to(images.pixels.device, non_blocking=True)
    if not use_op(images.pixels, images.mask, plan.scaled):
        return random_crop_reference(images, plan, fill=fill, antialias=antialias)
    image, mask, confidence = random_crop_op(
        images.pixels,
        images.offset,
        images.size,
        images.mask,
        images.confidence,
        plan.index.long(),
        plan.scaled.int(),
        plan.origin.int(),
        plan.flip.to(torch.uint8),
        *plan.size,
        list(fill),
        antialias,
    )
    return Crops(
        image=image,
        mask=None if images.mask is None else mask,
        confidence=None if images.confidence is None else confidence,
        window=plan.window,
    )
