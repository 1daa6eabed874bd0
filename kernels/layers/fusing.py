"""Where the pieces of a network run as one, and what they cast."""

# pyright: reportPrivateImportUsage=false

from collections.abc import Sequence

import torch
from torch import Tensor

from ..dispatch import use_op


def fused(*maps: Tensor) -> bool:
    """Tell whether maps (N, C, h, w) go through the Triton ops of this folder.

    They must be of one dtype and dense with channels last. What compiles or exports a network
    fuses, or writes down, PyTorch's own operations.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if not use_op(*maps):
        return False
    first = maps[0].dtype
    return all(
        map.dtype == first and map.is_contiguous(memory_format=torch.channels_last) for map in maps
    )


def cast_all(maps: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Cast maps of one dtype, by one launch for all, and their gradients likewise."""
    if maps[0].dtype == dtype:
        return list(maps)
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return [map.to(dtype) for map in maps]  # what compiles fuses casts with what follows
    return list(_CastAll.apply(dtype, *maps))


class _CastAll(torch.autograd.Function):
    """Casts of several maps."""

    @staticmethod
    def forward(ctx, dtype, *maps):
        ctx.dtype = maps[0].dtype
        return tuple(_cast(maps, dtype))

    @staticmethod
    def backward(ctx, *gradients):
        return None, *_cast(gradients, ctx.dtype)


def _cast(maps: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    cast = [torch.empty_like(map, dtype=dtype) for map in maps]
    torch._foreach_copy_(cast, list(maps))
    return cast
