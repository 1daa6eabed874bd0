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

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import IGNORE
from .dispatch import use_op
from .resident import CropPlan, Crops, ResidentImages

__all__ = ["random_crop", "random_crop_reference"]

BLOCK = 256


def random_crop_reference(
    images: ResidentImages,
    plan: CropPlan,
    *,
    fill: tuple[int, int, int] = (0, 0, 0),
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


@triton.jit
def _look(pixel, scaled_ptr, origin_ptr, source, n, AXIS: tl.constexpr, ANTIALIAS: tl.constexpr):
    """Return, for one axis of pixels, inside, floor(s), fraction of s, and the filter's radius."""
    scaled = tl.load(scaled_ptr + n * 2 + AXIS)
    pixel += tl.load(origin_ptr + n * 2 + AXIS)
    inside = (pixel >= 0) & (pixel < scaled)
    halves = (2 * tl.minimum(tl.maximum(pixel, 0), scaled - 1) + 1) * source
    nearest = halves // (2 * scaled)
    fraction = (halves % (2 * scaled)).to(tl.float32) / (2 * scaled).to(tl.float32)
    radius = source.to(tl.float32) / scaled.to(tl.float32)
    radius = tl.maximum(radius, 1.0) if ANTIALIAS else radius * 0.0 + 1.0
    return inside, nearest, fraction, radius


@triton.jit
def _tap(nearest, fraction, radius, step, source):
    """Return source pixel and weight of tap number `step`."""
    away = tl.floor(fraction - radius - 0.5) + 1.0 + step
    pixel = nearest + away.to(tl.int32)
    near = 1.0 - tl.abs(away + 0.5 - fraction) / radius
    return pixel, tl.where((pixel >= 0) & (pixel < source), tl.maximum(near, 0.0), 0.0)


@triton.jit
def _random_crop_kernel(
    pixels_ptr,
    offset_ptr,
    size_ptr,
    mask_ptr,
    confidence_ptr,
    index_ptr,
    scaled_ptr,
    origin_ptr,
    flip_ptr,
    image_out_ptr,
    mask_out_ptr,
    confidence_out_ptr,
    H,
    W,
    red,
    green,
    blue,
    IGNORED: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_CONFIDENCE: tl.constexpr,
    ANTIALIAS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gather one block of one crop: blended colours, nearest mask and confidence."""
    n = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = pixel < H * W
    source = tl.load(index_ptr + n)
    offset = tl.load(offset_ptr + source)
    height = tl.load(size_ptr + source * 2)
    width = tl.load(size_ptr + source * 2 + 1)
    in_rows, y, y_fraction, y_radius = _look(
        pixel // W, scaled_ptr, origin_ptr, height, n, 0, ANTIALIAS
    )
    column = pixel % W
    column = tl.where(tl.load(flip_ptr + n) != 0, W - 1 - column, column)
    in_columns, x, x_fraction, x_radius = _look(
        column, scaled_ptr, origin_ptr, width, n, 1, ANTIALIAS
    )
    inside = live & in_rows & in_columns
    total = tl.zeros((BLOCK,), tl.float32)
    sum_red = tl.zeros((BLOCK,), tl.float32)
    sum_green = tl.zeros((BLOCK,), tl.float32)
    sum_blue = tl.zeros((BLOCK,), tl.float32)
    for i in range(tl.ceil(2.0 * y_radius).to(tl.int32)):
        row, row_weight = _tap(y, y_fraction, y_radius, i, height)
        for j in range(tl.ceil(2.0 * x_radius).to(tl.int32)):
            column, weight = _tap(x, x_fraction, x_radius, j, width)
            weight *= row_weight
            seen = inside & (weight > 0)
            at = pixels_ptr + (offset + row * width + column) * 3
            total += weight
            sum_red += weight * tl.load(at, mask=seen, other=0).to(tl.float32)
            sum_green += weight * tl.load(at + 1, mask=seen, other=0).to(tl.float32)
            sum_blue += weight * tl.load(at + 2, mask=seen, other=0).to(tl.float32)
    scale = 1.0 / tl.maximum(total, 1e-12)
    to = n * H * W + pixel
    out = image_out_ptr + to * 3
    tl.store(out, _level(sum_red * scale, red, inside), mask=live)
    tl.store(out + 1, _level(sum_green * scale, green, inside), mask=live)
    tl.store(out + 2, _level(sum_blue * scale, blue, inside), mask=live)
    at = offset + y * width + x
    if HAS_MASK:
        tl.store(mask_out_ptr + to, tl.load(mask_ptr + at, mask=inside, other=IGNORED), mask=live)
    if HAS_CONFIDENCE:
        value = tl.load(confidence_ptr + at, mask=inside, other=0)
        tl.store(confidence_out_ptr + to, value, mask=live)


@triton.jit
def _level(value, fill, inside):
    """Round to the nearest of 256 levels, halves up; the fill where the image is not shown."""
    level = tl.minimum(tl.floor(value + 0.5), 255.0).to(tl.int32)
    return tl.where(inside, level, fill).to(tl.uint8)


@torch.library.custom_op("warpseg::random_crop", mutates_args=())
def _random_crop(
    pixels: Tensor,
    offset: Tensor,
    size: Tensor,
    mask: Tensor | None,
    confidence: Tensor | None,
    index: Tensor,
    scaled: Tensor,
    origin: Tensor,
    flip: Tensor,
    height: int,
    width: int,
    fill: list[int],
    antialias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch = index.shape[0]
    image, mask_out, confidence_out = _outputs(pixels, mask, confidence, batch, height, width)
    if image.numel():
        _random_crop_kernel[(triton.cdiv(height * width, BLOCK), batch)](
            pixels,
            offset,
            size,
            mask if mask is not None else pixels,
            confidence if confidence is not None else pixels,
            index,
            scaled,
            origin,
            flip,
            image,
            mask_out,
            confidence_out,
            height,
            width,
            *fill,
            IGNORED=IGNORE,
            HAS_MASK=mask is not None,
            HAS_CONFIDENCE=confidence is not None,
            ANTIALIAS=antialias,
            BLOCK=BLOCK,
        )
    return image, mask_out, confidence_out


def _outputs(
    pixels: Tensor,
    mask: Tensor | None,
    confidence: Tensor | None,
    batch: int,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return image, mask and confidence to be written; without a map, a tensor of no elements."""
    shapes = [(batch if map is not None else 0, height, width) for map in (mask, confidence)]
    dtype = confidence.dtype if confidence is not None else torch.float32
    return (
        pixels.new_empty(batch, height, width, 3),
        pixels.new_empty(shapes[0]),
        pixels.new_empty(shapes[1], dtype=dtype),
    )


@_random_crop.register_fake
def _(
    pixels: Tensor,
    offset: Tensor,
    size: Tensor,
    mask: Tensor | None,
    confidence: Tensor | None,
    index: Tensor,
    scaled: Tensor,
    origin: Tensor,
    flip: Tensor,
    height: int,
    width: int,
    fill: list[int],
    antialias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(pixels, mask, confidence, index.shape[0], height, width)


def random_crop(
    images: ResidentImages,
    plan: CropPlan,
    *,
    fill: tuple[int, int, int] = (0, 0, 0),
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
    image, mask, confidence = _random_crop(
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
