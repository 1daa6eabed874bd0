"""Triton op of `warp`: one read and one write per element, the four taps meeting in the cache."""

# Triton's decorators are not typed.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportFunctionMemberAccess=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportPossiblyUnboundVariable=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compile import CompileCase, Work
from ..layout import check_indices
from .tps_triton import spline_position

PLANES = {"BLOCK_P": 128, "BLOCK_C": 1}
CHANNELS_LAST = {"BLOCK_P": 32, "BLOCK_C": 16}
WARPS = 4


@triton.jit
def positions(points_ptr, weights_ptr, image, pixel, H, W, COUNT: tl.constexpr):
    """Return the source positions of the flat pixel indices of one image."""
    row = pixel // W
    x = (pixel - row * W).to(tl.float32)
    return spline_position(points_ptr, weights_ptr, image, x, row.to(tl.float32), H, W, COUNT)


@triton.jit
def bilinear_tap(x, y, tap: tl.constexpr, H, W, NEAREST: tl.constexpr):
    """Return column, row, bilinear weight and whether it lies in the map, of one of the taps."""
    if NEAREST:
        column = tl.floor(x + 0.5)
        row = tl.floor(y + 0.5)
        weight = tl.full(x.shape, 1.0, tl.float32)
    else:
        column = tl.floor(x) + tap % 2
        row = tl.floor(y) + tap // 2
        weight = (1.0 - tl.abs(x - column)) * (1.0 - tl.abs(y - row))
    within = (column >= 0) & (column <= W - 1) & (row >= 0) & (row <= H - 1)
    column = tl.where(within, column, 0.0).to(tl.int64)
    row = tl.where(within, row, 0.0).to(tl.int64)
    return column, row, weight, within


@triton.jit
def _warp_forward_kernel(
    values_ptr,
    out_ptr,
    points_ptr,
    weights_ptr,
    fill,
    C,
    H,
    W,
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    out_n,
    out_c,
    out_h,
    out_w,
    COUNT: tl.constexpr,
    NEAREST: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program: BLOCK_P pixels of one image, all channels, BLOCK_C at a time."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    live = pixel < H * W
    x, y = positions(points_ptr, weights_ptr, image, pixel, H, W, COUNT)
    values_ptr += image * stride_n
    row = (pixel // W).to(tl.int64)
    to = out_ptr + image * out_n + row * out_h + (pixel - row * W) * out_w
    TAPS: tl.constexpr = 1 if NEAREST else 4
    for start in range(0, C, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C).to(tl.int64)
        known = live[:, None] & (channel < C)[None, :]
        if NEAREST:
            column, line, _, within = bilinear_tap(x, y, 0, H, W, NEAREST)
            at = (line * stride_h + column * stride_w)[:, None] + (channel * stride_c)[None, :]
            out = tl.load(values_ptr + at, known & within[:, None], other=fill)
        else:
            out = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
            for tap in tl.static_range(TAPS):
                column, line, weight, within = bilinear_tap(x, y, tap, H, W, NEAREST)
                at = (line * stride_h + column * stride_w)[:, None] + (channel * stride_c)[None, :]
                value = tl.load(values_ptr + at, known & within[:, None], other=fill)
                out += weight[:, None] * (value.to(tl.float32) - fill)
            out += fill
        tl.store(to[:, None] + (channel * out_c)[None, :], out.to(out_ptr.dtype.element_ty), known)


def blocks(maps: Tensor) -> dict[str, int]:
    """Lay threads along what lies together in memory: channels if channels-last, else pixels."""
    if maps.stride(1) != 1 or maps.shape[1] == 1:
        return {**PLANES, "num_warps": WARPS}
    channels = min(triton.next_power_of_2(maps.shape[1]), CHANNELS_LAST["BLOCK_C"])
    return {**CHANNELS_LAST, "BLOCK_C": channels, "num_warps": WARPS}


def grid(maps: Tensor) -> tuple[int, int]:
    """Return the launch grid: blocks of pixels, images."""
    return triton.cdiv(maps.shape[2] * maps.shape[3], blocks(maps)["BLOCK_P"]), maps.shape[0]


@torch.library.custom_op("warpseg::warp", mutates_args=())
def warp_op(maps: Tensor, points: Tensor, weights: Tensor, nearest: bool, fill: float) -> Tensor:
    """Warp (N, C, H, W) by splines; the result has the maps' dtype and memory format."""
    out = torch.empty_like(maps)
    if not maps.numel():
        return out
    check_indices(maps.shape[2] * maps.shape[3])
    # Triton has no pointers to bool.
    source, to = (m.view(torch.uint8) if m.dtype == torch.bool else m for m in (maps, out))
    with torch.cuda.device_of(maps):
        _warp_forward_kernel[grid(maps)](
            source,
            to,
            points.contiguous(),
            weights.contiguous(),
            fill if maps.is_floating_point() else int(fill),
            *maps.shape[1:],
            *maps.stride(),
            *out.stride(),
            COUNT=points.shape[1],
            NEAREST=nearest,
            **blocks(maps),
        )
    return out


@warp_op.register_fake
def _(maps: Tensor, points: Tensor, weights: Tensor, nearest: bool, fill: float) -> Tensor:
    return torch.empty_like(maps)


def map_case(
    name: str,
    kernel: Any,
    pointers: dict[str, str],
    scalars: dict[str, str],
    constexprs: dict[str, Any],
    moved: tuple[float, float],
) -> CompileCase:
    """Describe one kernel over maps of 19 or, for labels, 1 channel, of 768 x 768 pixels."""
    known = {*pointers, *scalars, *constexprs}
    integers = {parameter: "i32" for parameter in kernel.arg_names if parameter not in known}
    channels, area = 1 if constexprs.get("NEAREST") else 19, 768 * 768
    steps = {"n": channels * area, "c": area, "h": 768, "w": 1}
    if constexprs["BLOCK_C"] > 1:
        steps = {"n": channels * area, "c": 1, "h": 768 * channels, "w": channels}
    sizes = {f"{map}_{axis}": step for map in ("stride", "out") for axis, step in steps.items()}
    sizes |= {"C": channels, "H": 768, "W": 768, "fill": 255}
    return CompileCase(
        name=name,
        kernel=kernel,
        signature={**pointers, **scalars, **integers},
        constexprs=constexprs,
        sizes=sizes,
        work=Work(
            8 * area,
            8 * area // constexprs["BLOCK_P"],
            (triton.cdiv(channels, constexprs["BLOCK_C"]),),
        ),
        num_warps=WARPS,
        bytes_per_pixel=moved[0],
        floor_bytes_per_pixel=moved[1],
    )


def compile_cases() -> list[CompileCase]:
    """List the warp of bfloat16 maps, as planes and channels-last, and of labels."""
    rows = [
        ("planes", "*bf16", False, PLANES, 76.0),
        ("channels-last", "*bf16", False, CHANNELS_LAST, 76.0),
        ("labels", "*u8", True, PLANES, 2.0),
    ]
    return [
        map_case(
            f"warp/{name}",
            _warp_forward_kernel,
            {"values_ptr": kind, "out_ptr": kind, "points_ptr": "*fp32", "weights_ptr": "*fp32"},
            {"fill": "i32" if nearest else "fp32"},
            {"COUNT": 4, "NEAREST": nearest, **tile},
            (moved, moved),
        )
        for name, kind, nearest, tile, moved in rows
    ]
