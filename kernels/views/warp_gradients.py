"""Gradients of the warp and of its forward splat: each is the other's adjoint."""

import torch
from torch import Tensor

from .splat_triton import splat_op
from .warp_triton import warp_op

__all__ = ["splat_op", "warp_op"]


def _warp_setup(ctx, inputs: tuple, output: Tensor) -> None:
    _, points, weights, nearest, _ = inputs
    ctx.save_for_backward(points, weights)
    ctx.nearest = nearest


def _warp_backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
    points, weights = ctx.saved_tensors
    return splat_op(gradient, points, weights, ctx.nearest, False, 0.0)[0], None, None, None, None


warp_op.register_autograd(_warp_backward, setup_context=_warp_setup)


def _splat_setup(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    _, points, weights, ctx.nearest, ctx.average, ctx.minimum = inputs
    ctx.save_for_backward(points, weights, output[1])
    ctx.mark_non_differentiable(output[1])


def _splat_backward(ctx, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    points, weights, share = ctx.saved_tensors
    if ctx.average:
        kept = share >= ctx.minimum
        factor = torch.where(kept, 1 / torch.where(kept, share, 1), 0)[:, None]
        gradient = gradient * factor.to(gradient.dtype)
    maps = warp_op(gradient, points, weights, ctx.nearest, 0.0)
    return maps, None, None, None, None, None


splat_op.register_autograd(_splat_backward, setup_context=_splat_setup)
