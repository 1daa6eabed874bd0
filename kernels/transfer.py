"""Small tensors on their way to the device: together, in one copy the host does not wait for."""

from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNMENT = 16
"""Bytes: kernels read addresses that are multiples of it faster, and are compiled for them."""


def moved(
    tensors: Sequence[Tensor], device: torch.device | str, non_blocking: bool = False
) -> list[Tensor]:
    """Return tensors on a device. From the host to a GPU they go packed, through pinned memory."""
    target = torch.device(device)
    if target.type != "cuda" or any(tensor.device.type != "cpu" for tensor in tensors):
        return [tensor.to(target, non_blocking=non_blocking) for tensor in tensors]
    return unpacked(packed(tensors, pinned=True).to(target, non_blocking=non_blocking), tensors)


def packed(tensors: Sequence[Tensor], *, pinned: bool = False) -> Tensor:
    """Return the bytes of CPU tensors one after the other, each at an aligned place, (n,) uint8."""
    starts, size = _places(tensors)
    buffer = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
    for start, tensor in zip(starts, tensors, strict=True):
        _view(buffer, start, tensor).copy_(tensor)
    return buffer


def unpacked(buffer: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors that were `packed`, as views of the buffer on its device."""
    starts, _ = _places(like)
    return [_view(buffer, start, tensor) for start, tensor in zip(starts, like, strict=True)]


def _places(tensors: Sequence[Tensor]) -> tuple[list[int], int]:
    """Return where each tensor begins, and the size of all."""
    starts, end = [], 0
    for tensor in tensors:
        starts.append(end)
        end += -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT
    return starts, end


def _view(buffer: Tensor, start: int, like: Tensor) -> Tensor:
    size = like.numel() * like.element_size()
    return buffer[start : start + size].view(like.dtype).view(like.shape)
