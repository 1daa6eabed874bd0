"""What the pixel losses share: checks of their inputs, full-resolution log-softmax, denominators.

Each loss sums over pixels, counts them in the same pass and divides at the end. `Totals` carries
both, so that a loss is one differentiable number over one that is not.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .. import IGNORE
from .upsample import LOWEST, stride_of, upsample_log_prob

MAX_CLASSES = 256
_LEAST = 1e-30
"""Stands for a denominator of 0, over which the sum is 0, too: finite when it scales a gradient."""
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Totals(NamedTuple):
    """Sums over the pixels of a batch.

    loss: 0-d float32 (float64 for float64 logits), differentiable. counts: (4,) of the same dtype,
    without gradient; the first is the number of kept pixels, the others belong to the operation.
    """

    loss: Tensor
    counts: Tensor


class PixelTerms(NamedTuple):
    """Full-resolution quantities of a reference; gradients flow through `log_prob` only."""

    log_prob: Tensor
    """(N, C, H, W) log-softmax of the upsampled logits, float32 or float64."""
    target: Tensor
    """(N, H, W) int64, 0 where the pixel is not kept."""
    kept: Tensor
    """(N, H, W) bool: not the ignore value."""
    target_log_prob: Tensor
    """(N, H, W) log-probability of the target; NaN where it is no class."""


def check_targets(logits: Tensor, target: Tensor, *maps: Tensor) -> int:
    """Check the shapes and dtypes of stride-s logits, a target and further maps; return s.

    Raises ValueError.
    """
    if logits.ndim != 4 or not logits.is_floating_point():
        raise ValueError(
            f"logits must be floating point (N, C, h, w); got {tuple(logits.shape)} {logits.dtype}"
        )
    if not 1 <= logits.shape[1] <= MAX_CLASSES:
        raise ValueError(f"logits must have 1 to {MAX_CLASSES} classes; got {logits.shape[1]}")
    if target.ndim != 3 or target.dtype not in _INTEGERS:
        raise ValueError(
            f"the target must be (N, H, W) of integers; got {tuple(target.shape)} {target.dtype}"
        )
    for other in (logits, *maps):
        if other.shape[0] != target.shape[0]:
            raise ValueError(f"batch sizes differ: {other.shape[0]} and {target.shape[0]}")
    for other in maps:
        if other.shape != target.shape:
            raise ValueError(
                f"maps must have the target's shape {tuple(target.shape)}; got {tuple(other.shape)}"
            )
    return stride_of(logits, (target.shape[1], target.shape[2]))


def pixel_terms(logits: Tensor, target: Tensor, ignore: int = IGNORE) -> PixelTerms:
    """Upsample stride-s logits and look the targets up: how every reference begins.

    Half precision is raised to float32 first. A target that is neither a class nor `ignore` raises
    ValueError on the CPU; elsewhere it gives NaN, as the kernels do: an error there would need a
    host sync.
    """
    full = logits if logits.dtype == torch.float64 else logits.float()
    # A narrow type would wrap the value to ignore.
    wide = target.long()
    kept = wide != ignore
    safe = torch.where(kept, wide, 0)
    known = (safe >= 0) & (safe < logits.shape[1])
    if safe.device.type == "cpu" and type(safe) is Tensor and not torch.compiler.is_compiling():
        _check_known(safe, known, logits.shape[1], ignore)
    index = safe.clamp(0, logits.shape[1] - 1)
    log_prob, picked = upsample_log_prob(full, index)
    picked = torch.where(picked < LOWEST, -torch.inf, picked)
    return PixelTerms(log_prob, index, kept, torch.where(known, picked, torch.nan))


def _check_known(target: Tensor, known: Tensor, classes: int, ignore: int) -> None:
    if not bool(known.all()):
        strange = target[~known]
        raise ValueError(
            f"the target holds {int(strange[0])} at {len(strange)} pixels, which is neither one of "
            f"the {classes} classes, 0 to {classes - 1}, nor {ignore} (ignored): check the masks "
            "and the number of classes"
        )


def totals(loss: Tensor, kept: Tensor, *counts: Tensor) -> Totals:
    """Sum a (N, H, W) loss where `kept`, and up to three maps of counts."""
    sums = [count.detach().to(loss.dtype).sum() for count in (kept, *counts)]
    sums += [loss.new_zeros(())] * (4 - len(sums))
    return Totals(torch.where(kept, loss, 0).sum(), torch.stack(sums))


def totals_of(outputs: tuple[Tensor, Tensor]) -> Totals:
    """Return the totals of an operation registered by `cell_loss.register`."""
    sums, _ = outputs
    return Totals(_First.apply(sums), sums[1:].detach())


class _First(torch.autograd.Function):
    """The first of some sums, the only one of which the operations' backward reads the gradient: it
    needs no zeros for the others."""

    @staticmethod
    def forward(ctx, sums):
        ctx.shape = sums.shape
        return sums[0]

    @staticmethod
    def backward(ctx, *gradients):
        return gradients[0].expand(ctx.shape)


def divide(total: Tensor, denominator: Tensor) -> Tensor:
    """Divide a sum over pixels; an empty denominator gives 0 with gradient 0, never NaN."""
    denominator = denominator.detach().to(total.dtype)
    return total / denominator.clamp(min=_LEAST)


def choose_denominator(
    denominator: str | Tensor, kept: Tensor, target: Tensor, **others: Tensor
) -> Tensor:
    """Return the 0-d denominator: the name of a count (`kept`, `all`, or `others`) or a tensor.

    Raises ValueError for an unknown name or a tensor that is not 0-d.
    """
    if not isinstance(denominator, str):
        if denominator.ndim:
            raise ValueError(f"a denominator must be 0-d; got {tuple(denominator.shape)}")
        return denominator
    if denominator == "all":
        return kept.new_full((), target.numel())
    if denominator == "kept":
        return kept
    if denominator not in others:
        names = ", ".join(("kept", "all", *others))
        raise ValueError(f"denominator must be one of {names} or a 0-d tensor; got {denominator!r}")
    return others[denominator]
