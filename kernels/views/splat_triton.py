"""Triton op of `inverse_splat`, and the adjoint of `warp`: pixels add to where they came from.

They arrive in no fixed order. To give the same bits every time, the sums are integers: values are
scaled by a power of two so that the sum of all pixels of an image would still fit 61 bits, which
leaves at least 61 - log2(H W) bits below the largest value, more than float32 holds. Integer
addition is associative, so 64-bit atomics in any order agree. A map with NaN or infinity comes back
as NaN everywhere.
"""

# Triton's decorators are not typed.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportFunctionMemberAccess=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportPossiblyUnboundVariable=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compile import CompileCase
from ..layout import check_indices
from .warp_triton import CHANNELS_LAST, bilinear_tap, blocks, grid, map_case, positions


@triton.jit
def _splat_kernel(
    values_ptr,
    total_ptr,
    received_ptr,
    scale_ptr,
    points_ptr,
    weights_ptr,
    unit,
    C,
    H,
    W,
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    COUNT: tl.constexpr,
    NEAREST: tl.constexpr,
    RECEIVED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Add every pixel's scaled value to total (N, H W, C) int64 and its weight to received."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    live = pixel < H * W
    x, y = positions(points_ptr, weights_ptr, image, pixel, H, W, COUNT)
    row = (pixel // W).to(tl.int64)
    values_ptr += image * stride_n
    at = row * stride_h + (pixel - row * W) * stride_w
    scale = tl.load(scale_ptr)
    TAPS: tl.constexpr = 1 if NEAREST else 4
    if RECEIVED:
        for tap in tl.static_range(TAPS):
            column, line, weight, within = bilinear_tap(x, y, tap, H, W, NEAREST)
            pixels = received_ptr + image * H * W + line * W + column
            tl.atomic_add(pixels, (weight * unit).to(tl.int64), live & within, sem="relaxed")
    for start in range(0, C, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C).to(tl.int64)
        known = live[:, None] & (channel < C)[None, :]
        value = tl.load(values_ptr + at[:, None] + (channel * stride_c)[None, :], known, other=0)
        value = value.to(tl.float32) * scale
        for tap in tl.static_range(TAPS):
            column, line, weight, within = bilinear_tap(x, y, tap, H, W, NEAREST)
            to = total_ptr + (image * H * W + line * W + column)[:, None] * C + channel[None, :]
            share = (weight[:, None] * value).to(tl.int64)
            tl.atomic_add(to, share, known & within[:, None], sem="relaxed")


@triton.jit
def _splat_finish_kernel(
    total_ptr,
    received_ptr,
    scale_ptr,
    out_ptr,
    share_ptr,
    unit,
    minimum,
    C,
    H,
    W,
    out_n,
    out_c,
    out_h,
    out_w,
    AVERAGE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Turn the integers into sums, or into means where at least `minimum` was received."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    live = pixel < H * W
    at = image * H * W + pixel
    row = (pixel // W).to(tl.int64)
    to = out_ptr + image * out_n + row * out_h + (pixel - row * W) * out_w
    factor = tl.full([BLOCK_P], 1.0, tl.float32)
    if AVERAGE:
        share = tl.load(received_ptr + at, live, other=0).to(tl.float32) / unit
        tl.store(share_ptr + at, share, live)
        factor = tl.where(share >= minimum, 1.0 / tl.maximum(share, minimum), 0.0)
    factor = factor / tl.load(scale_ptr)
    for start in range(0, C, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C).to(tl.int64)
        known = live[:, None] & (channel < C)[None, :]
        total = tl.load(total_ptr + at[:, None] * C + channel[None, :], known, other=0)
        out = total.to(tl.float32) * factor[:, None]
        tl.store(to[:, None] + (channel * out_c)[None, :], out.to(out_ptr.dtype.element_ty), known)


@torch.library.custom_op("warpseg::splat", mutates_args=())
def splat_op(
    maps: Tensor, points: Tensor, weights: Tensor, nearest: bool, average: bool, minimum: float
) -> tuple[Tensor, Tensor]:
    """Scatter (N, C, H, W) floating maps to where they came from.

    average: divide by what each pixel received, 0 where that is less than `minimum`; else the sums,
    which are the adjoint of `warp_op`. Returns the map and the received weight, (N, H, W) float32
    (empty without `average`).
    """
    batch, channels, height, width = maps.shape
    out = torch.empty_like(maps)
    share = maps.new_empty((batch, height, width) if average else (0,), dtype=torch.float32)
    if not maps.numel():
        return out, share
    check_indices(height * width)
    bits = 61 - (height * width - 1).bit_length()
    total = maps.new_zeros((batch, height, width, channels), dtype=torch.int64)
    received = maps.new_zeros(share.shape, dtype=torch.int64)
    scale = _scale(maps, bits)
    splines = points.contiguous(), weights.contiguous()
    launch = blocks(maps)
    with torch.cuda.device_of(maps):
        _splat_kernel[grid(maps)](
            maps,
            total,
            received,
            scale,
            *splines,
            float(2**bits),
            *maps.shape[1:],
            *maps.stride(),
            COUNT=points.shape[1],
            NEAREST=nearest,
            RECEIVED=average,
            **launch,
        )
        _splat_finish_kernel[grid(maps)](
            total,
            received,
            scale,
            out,
            share,
            float(2**bits),
            minimum,
            *maps.shape[1:],
            *out.stride(),
            AVERAGE=average,
            **launch,
        )
    return out, share


def _scale(maps: Tensor, bits: int) -> Tensor:
    """Return the power of two that brings the largest magnitude below 2^bits; NaN if not finite."""
    largest = torch.linalg.vector_norm(maps, float("inf"), dtype=torch.float32)
    exponent = torch.frexp(largest).exponent.clamp_min(bits - 120)
    scale = torch.ldexp(torch.ones_like(largest), bits - exponent)
    return torch.where(largest.isfinite(), scale, torch.nan)


@splat_op.register_fake
def _(
    maps: Tensor, points: Tensor, weights: Tensor, nearest: bool, average: bool, minimum: float
) -> tuple[Tensor, Tensor]:
    batch, _, height, width = maps.shape
    shape = (batch, height, width) if average else (0,)
    return torch.empty_like(maps), maps.new_empty(shape, dtype=torch.float32)


def compile_cases() -> list[CompileCase]:
    """List the average of 19-channel bfloat16 maps and the adjoint of warping them.

    The integers' traffic, 8 bytes read and written for each of the taps that miss the cache, is
    counted once per channel.
    """
    pointers = {f"{name}_ptr": "*i64" for name in ("total", "received")}
    splines = dict.fromkeys(("scale_ptr", "points_ptr", "weights_ptr"), "*fp32")
    cases = []
    for name, average in (("average", True), ("adjoint", False)):
        constexprs = {"COUNT": 4, "NEAREST": False, "RECEIVED": average, **CHANNELS_LAST}
        cases.append(
            map_case(
                f"splat/{name}",
                _splat_kernel,
                {**pointers, **splines, "values_ptr": "*bf16"},
                {"unit": "fp32"},
                constexprs,
                ((2 + 16) * 19.0 + 16 * average, 2 * 19.0),
            )
        )
        outputs = {"scale_ptr": "*fp32", "out_ptr": "*bf16", "share_ptr": "*fp32"}
        cases.append(
            map_case(
                f"splat_finish/{name}",
                _splat_finish_kernel,
                {**pointers, **outputs},
                {"unit": "fp32", "minimum": "fp32"},
                {"AVERAGE": average, **CHANNELS_LAST},
                ((8 + 2) * 19.0 + 12 * average, 2 * 19.0),
            )
        )
    return cases
