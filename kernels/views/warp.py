"""Warp maps by a thin plate spline, and bring warped maps back.

Bilinear (maps) or nearest (labels) backward warping, Eq. 8 of the one-way consistency paper, and
its inverse by forward splatting in average mode, which the variant "both sides perturbed" needs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dispatch import use_op
from .tps import TPS, source_positions
from .warp_gradients import splat_op, warp_op

__all__ = ["inverse_splat", "inverse_splat_reference", "warp", "warp_reference"]

SPLAT_MINIMUM = 1e-3
"""A pixel that receives less than this share of one pixel's weight is a hole: its quotient would be
a quotient of rounding errors."""


def warp(values: Tensor, tps: TPS, *, mode: str = "bilinear", fill: float = 0) -> Tensor:
    """Show at each pixel q what `values` shows at q + f(q).

    values: (N, C, H, W) or (N, H, W); floating for mode "bilinear", any dtype for "nearest".
    Returns the same shape and dtype. Outside of the map lies `fill` (0, as the paper; IGNORE for
    labels). Differentiable in `values` for floating maps; `tps` gets no gradient.
    Raises ValueError for another mode, or integers with "bilinear".
    """
    if not use_op(values, tps.points):
        return warp_reference(values, tps, mode=mode, fill=fill)
    check_warp(values, tps, mode)
    maps = values if values.ndim == 4 else values[:, None]
    warped = warp_op(maps, tps.points, tps.weights, mode == "nearest", fill)
    return warped if values.ndim == 4 else warped[:, 0]


def warp_reference(values: Tensor, tps: TPS, *, mode: str = "bilinear", fill: float = 0) -> Tensor:
    """Define `warp` in plain PyTorch, for any device."""
    check_warp(values, tps, mode)
    maps = values if values.ndim == 4 else values[:, None]
    size = (maps.shape[2], maps.shape[3])
    x, y = source_positions(tps, size)
    if mode == "nearest":
        warped = _warp_nearest(maps, x, y, fill)
    else:
        wide = torch.promote_types(values.dtype, torch.float32)
        shifted = maps.to(wide) if fill == 0 else maps.to(wide) - fill
        warped = sample_bilinear(shifted, x, y)
        warped = (warped if fill == 0 else warped + fill).to(values.dtype)
    return warped if values.ndim == 4 else warped[:, 0]


def sample_bilinear(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Sample (N, C, H, W) at positions (N, h, w) in pixels, zeros outside (Eq. 8)."""
    height, width = maps.shape[2:]
    grid = torch.stack([x * (2 / max(width - 1, 1)), y * (2 / max(height - 1, 1))], dim=-1)
    grid = grid.sub_(1).to(maps.dtype)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def inverse_splat(values: Tensor, tps: TPS) -> tuple[Tensor, Tensor]:
    """Bring a warped map back by forward splatting, average mode.

    Each pixel q gives its value to the four pixels around q + f(q) with bilinear weights; a pixel
    becomes the weighted mean of what it received. values: (N, C, H, W) or (N, H, W) floating.
    Returns the map (same shape and dtype, 0 in holes) and valid, (N, H, W) bool, false in holes
    (less than `SPLAT_MINIMUM` received). Differentiable in `values`. The same bits every time.
    """
    if not use_op(values, tps.points):
        return inverse_splat_reference(values, tps)
    check_warp(values, tps, "bilinear")
    maps = values if values.ndim == 4 else values[:, None]
    mean, received = splat_op(maps, tps.points, tps.weights, False, True, SPLAT_MINIMUM)
    return mean if values.ndim == 4 else mean[:, 0], received >= SPLAT_MINIMUM


def inverse_splat_reference(values: Tensor, tps: TPS) -> tuple[Tensor, Tensor]:
    """Define `inverse_splat` in plain PyTorch; sums in float32 (float64 for float64 maps).

    On CUDA the sums of `scatter_add_` come in any order, so that the last bits may differ between
    runs; on the CPU they do not.
    """
    check_warp(values, tps, "bilinear")
    maps = values if values.ndim == 4 else values[:, None]
    batch, channels, height, width = maps.shape
    wide = torch.promote_types(values.dtype, torch.float32)
    x, y = (p.to(wide).flatten(1) for p in source_positions(tps, (height, width)))
    flat = maps.to(wide).flatten(2)
    total = flat.new_zeros(batch, channels, height * width)
    received = flat.new_zeros(batch, height * width)
    left, top = x.floor(), y.floor()
    for column in (left, left + 1):
        for row in (top, top + 1):
            weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
            within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            weight = torch.where(within, weight, 0)
            index = torch.where(within, row * width + column, 0).long()
            received.scatter_add_(1, index, weight)
            shares = flat * weight[:, None]
            total = total.scatter_add(2, index[:, None].expand_as(flat), shares)
    valid = received >= SPLAT_MINIMUM
    mean = torch.where(valid[:, None], total / torch.where(valid, received, 1)[:, None], 0)
    mean = mean.to(values.dtype).view_as(maps)
    return (mean if values.ndim == 4 else mean[:, 0]), valid.view(batch, height, width)


def check_warp(values: Tensor, tps: TPS, mode: str) -> None:
    """Raise ValueError for maps, splines or modes that do not go together."""
    if mode not in ("bilinear", "nearest"):
        raise ValueError(f"mode must be bilinear or nearest; got {mode!r}")
    if values.ndim not in (3, 4):
        raise ValueError(f"a map must be (N, C, H, W) or (N, H, W); got {tuple(values.shape)}")
    if mode == "bilinear" and not values.is_floating_point():
        raise ValueError(
            f'bilinear blending needs a floating map; got {values.dtype}; use mode="nearest"'
        )
    if len(tps) != values.shape[0]:
        raise ValueError(f"one spline per image: got {len(tps)} for {values.shape[0]} images")


def _warp_nearest(maps: Tensor, x: Tensor, y: Tensor, fill: float) -> Tensor:
    """Gather, as grid_sample takes no integers; halves round up."""
    height, width = maps.shape[2:]
    column, row = (x + 0.5).floor_(), (y + 0.5).floor_()
    within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = (row.clamp_(0, height - 1) * width + column.clamp_(0, width - 1)).long()
    flat = maps.flatten(2)
    taken = flat.gather(2, index.flatten(1)[:, None].expand(-1, flat.shape[1], -1)).view_as(maps)
    return torch.where(within[:, None], taken, torch.tensor(fill).to(maps))
