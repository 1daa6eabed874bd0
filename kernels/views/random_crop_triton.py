"""The gather of the resident cache: one launch cuts a batch of crops with their masks."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ... import IGNORE
from ..compile import CompileCase, Work
from ..layout import check_indices

# pyright: reportArgumentType=false, reportAssignmentType=false, reportFunctionMemberAccess=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

BLOCK = 256
PLAN = ["index_ptr", "scaled_ptr", "origin_ptr", "flip_ptr"]


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


# A size known to be a multiple of 16 makes Triton exchange pixels between threads, behind barriers.
@triton.jit(do_not_specialize=[*PLAN, "H", "W", "red", "green", "blue"])
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
def random_crop_op(
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
    """Return image, mask and confidence of the crops; no elements where the cache has no map."""
    batch = index.shape[0]
    image, mask_out, confidence_out = _outputs(pixels, mask, confidence, batch, height, width)
    if not image.numel():
        return image, mask_out, confidence_out
    check_indices(height * width)
    with torch.cuda.device_of(pixels):
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


@random_crop_op.register_fake
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


def compile_cases() -> list[CompileCase]:
    """List the kernel with a mask, with and without antialiasing, and with a confidence."""
    bytes_ptr = ("pixels", "mask", "flip", "image_out", "mask_out")
    pointers = {f"{name}_ptr": "*u8" for name in bytes_ptr}
    pointers |= {f"{name}_ptr": "*i32" for name in ("size", "scaled", "origin")}
    pointers |= {f"{name}_ptr": "*i64" for name in ("offset", "index")}
    cases = []
    rows = [
        ("antialias", True, False),
        ("bilinear", False, False),
        ("confidence", True, True),
    ]
    for name, antialias, confidence in rows:
        kinds = ("*fp16", "*fp16") if confidence else ("*u8", "*fp32")
        filled = dict(zip(("confidence_ptr", "confidence_out_ptr"), kinds, strict=True))
        moved = 8.0 + 4.0 * confidence
        cases.append(
            CompileCase(
                name=f"random_crop/{name}",
                kernel=_random_crop_kernel,
                signature={
                    **pointers,
                    **filled,
                    **dict.fromkeys(("H", "W", "red", "green", "blue"), "i32"),
                },
                constexprs={
                    "IGNORED": IGNORE,
                    "HAS_MASK": True,
                    "HAS_CONFIDENCE": confidence,
                    "ANTIALIAS": antialias,
                    "BLOCK": BLOCK,
                },
                work=Work(16 * 512 * 1024, 16 * 512 * 1024 // BLOCK, (2, 2)),
                bytes_per_pixel=moved,
                floor_bytes_per_pixel=moved,
            )
        )
    return cases
