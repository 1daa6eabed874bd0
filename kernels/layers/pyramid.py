"""Spatial pyramid pooling: averages of a map on three grids of cells, and the map joined with what
was made of them, enlarged.

    p_k = average of x over the cells of grid k      dL/dx += sum_k dL/dp_k / size of its cell
    y = concatenate(x, up(l_1), up(l_2), up(l_3))      dL/dl_k = up^T of its channels of dL/dy

Cells are those of `F.adaptive_avg_pool2d`; `up` is bilinear with half-pixel centres and computes in
float32. The maps are coarse, so that launches cost more than bytes: 17 of them become two forward,
and 11 become two backward. Sums are float32, in one order. Bytes an element: one read and one write
of each map, the floor, and what neighbours of a coarse cell read again, from the cache.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from ..compile import CompileCase, Work
from .fusing import cast_all, fused
from .pyramid_triton import (
    _average_backward_kernel,
    _average_kernel,
    _join_backward_kernel,
    _join_kernel,
)

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

LEVELS = 3
BLOCK_W = 16
Grid = tuple[int, int]


def average_reference(x: Tensor, grids: Sequence[Grid]) -> tuple[Tensor, ...]:
    """Return the map, and its averages on each grid."""
    return x, *(F.adaptive_avg_pool2d(x, grid) for grid in grids)


def join_reference(x: Tensor, levels: Sequence[Tensor]) -> Tensor:
    """Return the map and the levels, enlarged to its size, along the channels."""
    # In float32: the gradient of a cell is a sum over hundreds of pixels.
    wide = cast_all(levels, torch.float32 if x.dtype != torch.float64 else x.dtype)
    size = x.shape[-2:]
    enlarged = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in wide]
    return torch.cat([x, *cast_all(enlarged, levels[0].dtype)], dim=1)


def _counts(grids: Sequence[int]) -> list[int]:
    """Return how many cells the flat list of (down, across) of each grid has."""
    return [down * across for down, across in zip(grids[::2], grids[1::2], strict=True)]


def _parts(flat: Tensor, batch: int, channels: int, grids: Sequence[int]) -> list[Tensor]:
    """Return channels-last maps (N, C, down, across) over what the kernels store one after
    another."""
    sizes = [batch * cells * channels for cells in _counts(grids)]
    return [
        part.view(batch, down, across, channels).permute(0, 3, 1, 2)
        for part, down, across in zip(flat.split(sizes), grids[::2], grids[1::2], strict=True)
    ]


def _flat(map: Tensor, channels: int, grids: Sequence[int]) -> Tensor:
    count = map.shape[0] * channels * sum(_counts(grids))
    return torch.empty(count, dtype=map.dtype, device=map.device)


@torch.library.custom_op("warpseg::average_grids", mutates_args=())
def average_op(x: Tensor, grids: Sequence[int]) -> Tensor:
    """Return the averages of a channels-last map on grids, one after another, flat."""
    batch, channels, height, width = x.shape
    out = _flat(x, channels, grids)
    if out.numel():
        with torch.cuda.device_of(x):
            _average_kernel[(batch * sum(_counts(grids)),)](
                x,
                out,
                batch,
                height,
                width,
                *grids,
                C=channels,
                BLOCK_W=BLOCK_W,
                BLOCK_C=triton.next_power_of_2(channels),
            )
    return out


@average_op.register_fake
def _(x: Tensor, grids: Sequence[int]) -> Tensor:
    return _flat(x, x.shape[1], grids)


@torch.library.custom_op("warpseg::average_grids_backward", mutates_args=())
def average_backward_op(direct: Tensor, levels: Sequence[Tensor]) -> Tensor:
    """Return a map's own gradient plus that through its averages, channels-last.

    direct: (N, C, H, W) with channels one apart, any steps otherwise.
    """
    batch, channels, height, width = direct.shape
    out = _like(direct)
    grids = [size for level in levels for size in level.shape[-2:]]
    most = max(-(-across // width) + 1 for across in grids[1::2])
    if out.numel():
        with torch.cuda.device_of(out):
            _average_backward_kernel[(triton.cdiv(width, BLOCK_W), batch * height)](
                direct,
                *levels,
                out,
                direct.stride(0),
                direct.stride(2),
                direct.stride(3),
                height,
                width,
                *grids,
                most,
                C=channels,
                BLOCK_W=BLOCK_W,
                BLOCK_C=triton.next_power_of_2(channels),
            )
    return out


def _like(map: Tensor) -> Tensor:
    return torch.empty(
        map.shape, dtype=map.dtype, device=map.device, memory_format=torch.channels_last
    )


@average_backward_op.register_fake
def _(direct: Tensor, levels: Sequence[Tensor]) -> Tensor:
    return _like(direct)


@torch.library.custom_op("warpseg::join_levels", mutates_args=())
def join_op(x: Tensor, levels: Sequence[Tensor]) -> Tensor:
    """Return the map and the levels, enlarged to its size, along the channels; channels-last."""
    batch, channels, height, width = x.shape
    own = levels[0].shape[1]
    out = _joined(x, levels)
    if out.numel():
        with torch.cuda.device_of(x):
            _join_kernel[(triton.cdiv(width, BLOCK_W), batch * height)](
                x,
                *levels,
                out,
                height,
                width,
                *[size for level in levels for size in level.shape[-2:]],
                C=channels,
                LEVEL=own,
                BLOCK_W=BLOCK_W,
                BLOCK_C=triton.next_power_of_2(channels),
                BLOCK_L=triton.next_power_of_2(own),
            )
    return out


def _joined(x: Tensor, levels: Sequence[Tensor]) -> Tensor:
    batch, channels, height, width = x.shape
    return torch.empty(
        (batch, channels + sum(level.shape[1] for level in levels), height, width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


@join_op.register_fake
def _(x: Tensor, levels: Sequence[Tensor]) -> Tensor:
    return _joined(x, levels)


@torch.library.custom_op("warpseg::join_levels_backward", mutates_args=())
def join_backward_op(gradient: Tensor, channels: int, own: int, grids: Sequence[int]) -> Tensor:
    """Return the gradients of levels of `own` channels, one after another, flat.

    gradient: of the joined map, dense with channels last; the levels' channels begin at `channels`.
    """
    batch, _, height, width = gradient.shape
    out = _flat(gradient, own, grids)
    if out.numel():
        with torch.cuda.device_of(out):
            _join_backward_kernel[(batch * sum(_counts(grids)),)](
                gradient,
                out,
                batch,
                height,
                width,
                *grids,
                C=channels,
                LEVEL=own,
                BLOCK_W=BLOCK_W,
                BLOCK_L=triton.next_power_of_2(own),
            )
    return out


@join_backward_op.register_fake
def _(gradient: Tensor, channels: int, own: int, grids: Sequence[int]) -> Tensor:
    return _flat(gradient, own, grids)


class _Average(torch.autograd.Function):
    """The map itself and its averages; backward adds the gradients of all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *grids: int) -> tuple[Tensor, ...]:
        ctx.grids, ctx.shape = grids, x.shape
        parts = _parts(average_op(x, grids), len(x), x.shape[1], grids)
        return (x.view_as(x), *parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        direct, *levels = gradients
        if direct.stride(1) != 1:
            direct = direct.contiguous(memory_format=torch.channels_last)
        levels = [level.contiguous(memory_format=torch.channels_last) for level in levels]
        return average_backward_op(direct, levels), *[None] * len(ctx.grids)


class _Join(torch.autograd.Function):
    """Map and levels along the channels; the map's gradient is a part of what comes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *levels: Tensor) -> Tensor:
        ctx.channels, ctx.own = x.shape[1], levels[0].shape[1]
        ctx.grids = [size for level in levels for size in level.shape[-2:]]
        return join_op(x, levels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        flat = join_backward_op(gradient, ctx.channels, ctx.own, ctx.grids)
        parts = _parts(flat, len(gradient), ctx.own, ctx.grids)
        return gradient[:, : ctx.channels], *parts


def average_grids(x: Tensor, grids: Sequence[Grid]) -> tuple[Tensor, ...]:
    """Return a map (N, C, H, W), for who reads it beside its averages, and these, (N, C, *grid).

    Three grids of (cells down, cells across), any float dtype. Gradient: to the map. Raises
    ValueError for other numbers of grids.
    """
    if len(grids) != LEVELS:
        raise ValueError(f"average_grids takes {LEVELS} grids; got {len(grids)}")
    if fused(x) and _rows_fit(x):
        return _Average.apply(x, *(size for grid in grids for size in grid))
    return average_reference(x, grids)


def join_levels(x: Tensor, levels: Sequence[Tensor]) -> Tensor:
    """Return a map (N, C, H, W) and three levels (N, L, h, w), enlarged to its size, along the
    channels: (N, C + 3 L, H, W).

    Any float dtype; computed in float32. Gradients: to all. Raises ValueError for other numbers of
    levels, and for levels of different channels.
    """
    if len(levels) != LEVELS or any(level.shape[:2] != levels[0].shape[:2] for level in levels):
        shapes = [tuple(level.shape) for level in levels]
        raise ValueError(f"join_levels takes {LEVELS} levels of as many channels; got {shapes}")
    if fused(x, *levels) and _rows_fit(x):
        return _Join.apply(x, *levels)
    return join_reference(x, levels)


def _rows_fit(map: Tensor) -> bool:
    """Tell whether all rows of all images are few enough for a grid's second axis."""
    return len(map) * map.shape[2] < 2**16


def compile_cases() -> list[CompileCase]:
    """List SwiftNet's pyramid of a crop of 768 pixels: 128 bfloat16 channels at stride 32."""
    names = ("x", "direct", "gradient", "first", "second", "third", "out")
    kinds = {f"{name}_ptr": "*bf16" for name in names}
    wide = {"C": 128, "BLOCK_W": BLOCK_W, "BLOCK_C": 128}
    level = {"LEVEL": 42, "BLOCK_L": 64}
    cells, rows = 8 * (64 + 16 + 4), 8 * 24 * triton.cdiv(24, BLOCK_W)
    back = {key: value for key, value in wide.items() if key != "BLOCK_C"}
    moved, levels = 2 * 128 / 32**2, 2 * 3 * 42 / 32**2
    made = (
        ("average_grids", _average_kernel, wide, cells, moved),
        ("average_grids-backward", _average_backward_kernel, wide, rows, 2 * moved),
        ("join_levels", _join_kernel, {**wide, **level}, rows, 2 * moved + levels),
        ("join_levels-backward", _join_backward_kernel, {**back, **level}, cells, levels),
    )
    return [
        CompileCase(
            name=name,
            kernel=kernel,
            signature={
                key: kinds.get(key, "i32") for key in kernel.arg_names if key not in constants
            },
            constexprs=constants,
            work=Work(8 * 768**2, programs, (6, 1)),
            bytes_per_pixel=bytes_per_pixel,
            floor_bytes_per_pixel=bytes_per_pixel,
        )
        for name, kernel, constants, programs, bytes_per_pixel in made
    ]
