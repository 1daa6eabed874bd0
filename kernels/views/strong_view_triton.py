"""Make the strong view, its validity and the weak view in one pass over the bytes of the crop.

Bytes per pixel: 3 read (the four source pixels of neighbouring results overlap in the cache), 6
written in half precision, 1 of validity, 6 more with the weak view: 10 or 16, which is 16 or 26 us
for 16 x 512 x 1024 on an H200. The arithmetic, four hexcones and a spline of four logarithms per
pixel, takes longer.
"""

# Triton's decorators are not typed.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportFunctionMemberAccess=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportPossiblyUnboundVariable=false

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compile import CompileCase, Work
from ..layout import check_indices
from ..math_triton import divide
from .tps_triton import spline_position, within_window

BLOCK = 256
WARPS = 4
# A size known to be a multiple of 16 makes Triton exchange pixels between threads, behind barriers.
# The parameters are single numbers, wherever they lie: views of one packed copy need no second
# kernel.
PARAMETERS = [
    f"{name}_ptr"
    for name in ("brightness", "saturation", "hue", "contrast", "permutation", "points", "weights")
]


@triton.jit
def _photometric(
    red, green, blue, brightness, saturation, hue, contrast, n0, n1, n2, HSV: tl.constexpr
):
    """The five operations of `photometric` on three channel blocks of bytes, 0 to 255.

    brightness in that unit too; hue in sixths of a turn; n0, n1, n2: 5, 3, 1 permuted.
    """
    largest = tl.maximum(tl.maximum(red, green), blue)
    chroma = largest - tl.minimum(tl.minimum(red, green), blue)
    # Bytes: what is not 0 is at least 1.
    inverse = divide(1.0, tl.maximum(chroma, 1.0))
    sixths = tl.where(largest == green, (blue - red) * inverse + 2.0, (green - blue) * inverse)
    sixths = tl.where(largest == blue, (red - green) * inverse + 4.0, sixths) + hue
    value = largest + brightness
    if HSV:
        chroma = divide(chroma * value, tl.maximum(largest, 1.0))
    chroma *= saturation * contrast
    value *= contrast
    return (
        value - chroma * _share(sixths + n0),
        value - chroma * _share(sixths + n1),
        value - chroma * _share(sixths + n2),
    )


@triton.jit
def _share(k):
    """clip(min(k, 4 - k), 0, 1) of k mod 6."""
    k -= 6.0 * tl.floor(k * (1.0 / 6.0))
    return tl.minimum(tl.maximum(tl.minimum(k, 4.0 - k), 0.0), 1.0)


@triton.jit(do_not_specialize=[*PARAMETERS, "H", "W"])
def _strong_view_kernel(
    crop_ptr,
    strong_ptr,
    valid_ptr,
    weak_ptr,
    brightness_ptr,
    saturation_ptr,
    hue_ptr,
    contrast_ptr,
    permutation_ptr,
    points_ptr,
    weights_ptr,
    window_ptr,
    scale_0,
    scale_1,
    scale_2,
    shift_0,
    shift_1,
    shift_2,
    H,
    W,
    PHOTOMETRIC: tl.constexpr,
    HSV: tl.constexpr,
    CLAMP: tl.constexpr,
    COUNT: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    WITH_WEAK: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """One program: BLOCK_P pixels of one image. COUNT control points, 0 without a warp."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    live = pixel < H * W
    first = image * H * W
    crop_ptr += first * 3
    row = pixel // W
    x = (pixel - row * W).to(tl.float32)
    y = row.to(tl.float32)
    if PHOTOMETRIC:
        brightness = tl.load(brightness_ptr + image) * 255.0
        saturation = tl.load(saturation_ptr + image)
        hue = tl.load(hue_ptr + image) * 6.0
        contrast = tl.load(contrast_ptr + image)
        n0 = 5.0 - 2.0 * tl.load(permutation_ptr + image * 3).to(tl.float32)
        n1 = 5.0 - 2.0 * tl.load(permutation_ptr + image * 3 + 1).to(tl.float32)
        n2 = 5.0 - 2.0 * tl.load(permutation_ptr + image * 3 + 2).to(tl.float32)
    out_0 = tl.zeros([BLOCK_P], tl.float32)
    out_1 = tl.zeros([BLOCK_P], tl.float32)
    out_2 = tl.zeros([BLOCK_P], tl.float32)
    source_x = x
    source_y = y
    if COUNT > 0:
        source_x, source_y = spline_position(points_ptr, weights_ptr, image, x, y, H, W, COUNT)
    left = tl.floor(source_x)
    top = tl.floor(source_y)
    TAPS: tl.constexpr = 4 if COUNT > 0 else 1
    for tap in tl.static_range(TAPS):
        column = left + tap % 2
        line = top + tap // 2
        weight = (1.0 - tl.abs(source_x - column)) * (1.0 - tl.abs(source_y - line))
        within = live & (column >= 0) & (column <= W - 1) & (line >= 0) & (line <= H - 1)
        byte = crop_ptr + 3 * (line.to(tl.int32) * W + column.to(tl.int32)).to(tl.int64)
        red = tl.load(byte, within, other=0).to(tl.float32)
        green = tl.load(byte + 1, within, other=0).to(tl.float32)
        blue = tl.load(byte + 2, within, other=0).to(tl.float32)
        if PHOTOMETRIC:
            red, green, blue = _photometric(
                red, green, blue, brightness, saturation, hue, contrast, n0, n1, n2, HSV
            )
            if CLAMP:
                red = tl.minimum(tl.maximum(red, 0.0), 255.0)
                green = tl.minimum(tl.maximum(green, 0.0), 255.0)
                blue = tl.minimum(tl.maximum(blue, 0.0), 255.0)
        # Outside lies black after the photometric change, so the weight is masked, not the bytes.
        weight = tl.where(within, weight, 0.0)
        out_0 += weight * red
        out_1 += weight * green
        out_2 += weight * blue
    to = first * 3 + 3 * pixel.to(tl.int64)
    kind = strong_ptr.dtype.element_ty
    tl.store(strong_ptr + to, (out_0 * scale_0 + shift_0).to(kind), live)
    tl.store(strong_ptr + to + 1, (out_1 * scale_1 + shift_1).to(kind), live)
    tl.store(strong_ptr + to + 2, (out_2 * scale_2 + shift_2).to(kind), live)
    valid = within_window(source_x, source_y, window_ptr, image, H, W, HAS_WINDOW)
    tl.store(valid_ptr + first + pixel, valid.to(tl.uint8), live)
    if WITH_WEAK:
        byte = crop_ptr + 3 * pixel.to(tl.int64)
        red = tl.load(byte, live, other=0).to(tl.float32)
        green = tl.load(byte + 1, live, other=0).to(tl.float32)
        blue = tl.load(byte + 2, live, other=0).to(tl.float32)
        tl.store(weak_ptr + to, (red * scale_0 + shift_0).to(kind), live)
        tl.store(weak_ptr + to + 1, (green * scale_1 + shift_1).to(kind), live)
        tl.store(weak_ptr + to + 2, (blue * scale_2 + shift_2).to(kind), live)


@torch.library.custom_op("warpseg::strong_view", mutates_args=())
def strong_view_op(
    crop: Tensor,
    photometric: Sequence[Tensor],
    spline: Sequence[Tensor],
    window: Tensor | None,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    hsv: bool,
    clamp: bool,
    with_weak: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the kernel: strong, valid and weak, which is empty where not asked for.

    photometric: brightness, saturation, hue, contrast, permutation, or nothing; spline: points and
    weights, or nothing.
    """
    strong, valid, weak = _outputs(crop, dtype, with_weak)
    batch, height, width, _ = crop.shape
    if not crop.numel():
        return strong, valid, weak
    check_indices(height * width)
    with torch.cuda.device_of(crop):
        _strong_view_kernel[(triton.cdiv(height * width, BLOCK), batch)](
            crop.contiguous(),
            strong,
            valid.view(torch.uint8),
            weak,
            *[p.contiguous() for p in photometric or 5 * [crop]],
            *[s.contiguous() for s in spline or 2 * [crop]],
            crop if window is None else window.contiguous(),
            *[1 / (255 * s) for s in std],
            *[-m / s for m, s in zip(mean, std, strict=True)],
            height,
            width,
            PHOTOMETRIC=bool(photometric),
            HSV=hsv,
            CLAMP=clamp,
            COUNT=spline[0].shape[1] if spline else 0,
            HAS_WINDOW=window is not None,
            WITH_WEAK=with_weak,
            BLOCK_P=BLOCK,
            num_warps=WARPS,
        )
    return strong, valid, weak


def _outputs(crop: Tensor, dtype: torch.dtype, with_weak: bool) -> tuple[Tensor, Tensor, Tensor]:
    batch, height, width, _ = crop.shape
    shapes = (batch, 3, height, width), (batch if with_weak else 0, 3, height, width)
    strong, weak = (
        torch.empty(s, dtype=dtype, device=crop.device, memory_format=torch.channels_last)
        for s in shapes
    )
    return strong, crop.new_empty((batch, height, width), dtype=torch.bool), weak


@strong_view_op.register_fake
def _(
    crop: Tensor,
    photometric: Sequence[Tensor],
    spline: Sequence[Tensor],
    window: Tensor | None,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    hsv: bool,
    clamp: bool,
    with_weak: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(crop, dtype, with_weak)


def compile_cases() -> list[CompileCase]:
    """List the strong view in bfloat16, with the weak one, in RGB and clamped, and plain views."""
    pointers = {f"{name}_ptr": "*u8" for name in ("crop", "valid")}
    pointers |= {f"{name}_ptr": "*bf16" for name in ("strong", "weak")}
    parameters = ("brightness", "saturation", "hue", "contrast", "points", "weights")
    pointers |= {f"{name}_ptr": "*fp32" for name in parameters}
    pointers |= {"permutation_ptr": "*i64", "window_ptr": "*i32"}
    scalars = {f"{name}_{channel}": "fp32" for name in ("scale", "shift") for channel in range(3)}
    rows = [
        ("phtps", True, True, False, 4, False),
        ("phtps-weak", True, True, False, 4, True),
        ("phtps-rgb-clamp", True, False, True, 4, True),
        ("tps", False, True, False, 4, True),
        ("normalize", False, True, False, 0, False),
    ]
    # What is left out is handed over as the crop.
    colours = dict.fromkeys((f"{name}_ptr" for name in (*parameters[:4], "permutation")), "*u8")
    splines = {"points_ptr": "*u8", "weights_ptr": "*u8"}
    return [
        CompileCase(
            name=f"strong_view/{name}",
            kernel=_strong_view_kernel,
            signature={
                **pointers,
                **({} if changed else colours),
                **({} if count else splines),
                **scalars,
                "H": "i32",
                "W": "i32",
            },
            constexprs={
                "PHOTOMETRIC": changed,
                "HSV": hsv,
                "CLAMP": clamp,
                "COUNT": count,
                "HAS_WINDOW": True,
                "WITH_WEAK": weak,
                "BLOCK_P": BLOCK,
            },
            num_warps=WARPS,
            work=Work(16 * 512 * 1024, 16 * 512 * 1024 // BLOCK),
            bytes_per_pixel=16.0 if weak else 10.0,
            floor_bytes_per_pixel=16.0 if weak else 10.0,
        )
        for name, changed, hsv, clamp, count, weak in rows
    ]
