"""Nearest neighbours under half-pixel centres, for labels and boxes on maps of a coarser stride."""

import torch
from torch import Tensor


def centres(extent: int, stride: int, device: torch.device) -> Tensor:
    """Return (ceil(extent / stride),) int64: the pixel that each cell of a stride-s map follows.

    It is y * stride + stride // 2, cut to the border: the pixel at (for even strides, just after)
    the cell's centre, as F.interpolate(mode="nearest-exact") takes it.
    """
    cells = torch.arange(-(-extent // stride), device=device)
    return (cells * stride + stride // 2).clamp(max=extent - 1)


def at_centres(map: Tensor, stride: int) -> Tensor:
    """Return (N, ceil(H / stride), ceil(W / stride)) values of a map (N, H, W): a view of it where
    all centres lie inside."""
    if stride == 1:
        return map
    middle = stride // 2
    if all((extent - 1) % stride >= middle for extent in map.shape[-2:]):
        return map[..., middle::stride, middle::stride]
    rows = centres(map.shape[-2], stride, map.device)
    columns = centres(map.shape[-1], stride, map.device)
    return map[..., rows[:, None], columns]
