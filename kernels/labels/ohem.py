"""Online hard example mining: which labeled pixels are worth learning, from stride-s logits.

    p_i = softmax(z_i)[y_i],     z = bilinear upsampling of the logits
    t   = max(threshold, the least-th smallest p of the pixels that are not IGNORE)
    hard pixels: p_i <= t; all of them where there are fewer than `least`

(Shrivastava et al. 2016, in the form of UniMatch, U2PL and TorchSemiSeg on Cityscapes, with .7 and
100 000 or 200 000.) One kernel writes p, five passes of `select` find t exactly and without
a host sync, and the loss is `cross_entropy` of the mask that is left: a map of all classes at full
resolution never exists. Bytes per pixel: 1 read and 4 written for p, 20 for t, 6 for the mask;
3bC/s^2 for logits of b bytes (turned to class rows once). Floor: 5 + bC/s^2 and one read of p.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ... import IGNORE
from ..cells import exponentials, logit_of
from ..compile import CompileCase
from ..dispatch import use_op
from ..pixel_loss import check_targets, pixel_terms
from .quantile import select
from .walk import launch_walk, walk_cases

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false


def target_prob_reference(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the probability of each pixel's class (N, H, W), 1 where it is IGNORE."""
    terms = pixel_terms(logits.detach(), mask)
    return torch.where(terms.kept, terms.target_log_prob.exp(), 1)


@triton.jit
def _visit(
    z, largest, cls, target, inside, place, prob_ptr, copy, ignore, NUM_CLASSES: tl.constexpr
):
    """Write the target's probability."""
    total = tl.sum(exponentials(z, largest, cls, NUM_CLASSES), 0)
    own = logit_of(z, cls, target, NUM_CLASSES) - largest
    prob = tl.exp2(own * 1.4426950408889634) / total
    known = (target >= 0) & (target < NUM_CLASSES)
    prob = tl.where(known, prob, float("nan"))
    tl.store(prob_ptr + place, tl.where(target == ignore, 1.0, prob), mask=inside)


@torch.library.custom_op("warpseg::target_prob", mutates_args=())
def _target_prob(logits: Tensor, mask: Tensor) -> Tensor:
    prob = _output(logits, mask)
    launch_walk(_visit, logits, mask, prob)
    return prob


@_target_prob.register_fake
def _output(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.new_empty(tuple(mask.shape), dtype=torch.float32)


def target_prob(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the probability of each pixel's class, (N, H, W) float32 in [0, 1], without gradient.

    `logits` (N, C, h, w) at stride s of any float dtype and memory format; `mask` (N, H, W) of
    integers. It is 1 where the mask is IGNORE; a value of no class is an
    error on the CPU and NaN on a GPU.

    Raises ValueError for shapes and dtypes that do not fit.
    """
    check_targets(logits, mask)
    if use_op(logits, mask):
        return _target_prob(logits.detach(), mask)
    return target_prob_reference(logits, mask)


def hard_pixels(
    logits: Tensor, mask: Tensor, *, threshold: float = 0.7, least: int = 100_000
) -> Tensor:
    """Return the mask with IGNORE at the pixels that are learned well enough (OHEM).

    `logits` (N, C, h, w) at stride s, `mask` (N, H, W) of integers. Kept are the pixels of the
    batch whose class has a probability of at most `threshold`, and at least the `least` hardest,
    with all that equal the easiest of them. No gradient, no host sync: the loss is `cross_entropy`
    of the same logits and the returned mask.

    Raises ValueError for shapes and numbers that do not fit.
    """
    if not 0 <= threshold <= 1 or least < 1:
        raise ValueError(
            f"threshold must lie in [0, 1] and least be 1 or more; got {threshold} and {least}"
        )
    prob = target_prob(logits, mask)
    valid = mask != IGNORE
    rank = torch.full((), least - 1, device=mask.device)
    hardest, _ = select(prob, rank, mask=valid)
    bound = torch.where(valid.sum() < least, torch.inf, hardest.clamp(min=threshold))
    # Not p <= t: a mask value that is no class has to reach the loss, which then is NaN.
    return mask.masked_fill(prob > bound, IGNORE)


def compile_cases() -> list[CompileCase]:
    """List the kernel at the recipes' class counts."""
    return walk_cases("target_prob", _visit, "*fp32", 4)
