"""Focal loss of stride-s logits against a full-resolution mask (Lin et al. 2017, Eq. 4 and 5).

    l_i = -w[y_i] (1 - p_i)^gamma log p_i,    p_i = softmax(z_i)[y_i],    L = sum_i l_i / D

over the pixels i whose mask is not `ignore`, z and D as in `cross_entropy`, which it is at gamma 0.
Pixels that are learned count for little, so that a rare class is not drowned by those of common
ones. Bytes: `cells.py`, with one per pixel for the mask.

The factor of the gradient, dl/dz = k (softmax(z) - onehot(y)), is

    k = w (1 - p)^gamma (1 + gamma p r),    r = -log p / (1 - p), which is 1 at p = 1
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ... import IGNORE
from ..cells import hidden, logit_of
from ..compile import CompileCase
from ..dispatch import use_op
from ..math_triton import log2
from ..pixel_loss import (
    Totals,
    check_targets,
    choose_denominator,
    divide,
    pixel_terms,
    totals,
    totals_of,
)
from .cell_loss import launch, loss_cases, register

_LEAST = 1e-30
"""1 - p counts as this much at least: a power of it must have a slope."""


def focal_reference(
    logits: Tensor,
    mask: Tensor,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    ignore: int = IGNORE,
) -> Totals:
    """Sum the weighted focal loss in plain PyTorch; counts: kept pixels, sum of weights."""
    terms = pixel_terms(logits, mask, ignore)
    scale = terms.kept.to(terms.log_prob.dtype)
    if weight is not None:
        scale = scale * weight.to(scale.dtype)[terms.target]
    log_prob = terms.target_log_prob
    # Of a masked class log p is -inf, whose product with the slope of the power were NaN.
    known = torch.where(torch.isneginf(log_prob), 0, log_prob)
    unsure = (-torch.expm1(known)).clamp_min(_LEAST) ** gamma
    loss = torch.where(torch.isneginf(log_prob), -log_prob, -unsure * known)
    return totals(scale * loss, terms.kept, scale)


@triton.jit
def _pixel(
    z,
    largest,
    total,
    cls,
    target,
    kept,
    n,
    place,
    map_ptr,
    weight_ptr,
    gamma,
    second_parameter,
    third_parameter,
    NUM_CLASSES: tl.constexpr,
    WEIGHTED: tl.constexpr,
):
    """Return loss, factor, target, kept and counts of one pixel per lane."""
    log_prob = logit_of(z, cls, target, NUM_CLASSES) - largest - tl.log(total)
    prob = tl.exp(log_prob)
    scale = tl.where(kept, 1.0, 0.0)
    if WEIGHTED:
        known = kept & (target >= 0) & (target < NUM_CLASSES)
        scale = tl.load(weight_ptr + target, mask=known, other=0.0).to(tl.float32)
    rest = tl.maximum(1 - prob, 1e-30)
    unsure = tl.exp2(gamma * log2(rest))
    # Of a masked class log p is -inf, whose product with p = 0 were NaN.
    slope = -prob * tl.maximum(log_prob, -1e4) / rest
    # Close to p = 1 both parts of the quotient are rounding; it tends to p.
    slope = tl.where(rest < 1e-6, prob, slope)
    zero = tl.zeros_like(scale)
    target = hidden(target, (place >> 40).to(tl.int32))
    factor = scale * unsure * (1 + gamma * slope)
    return -scale * unsure * log_prob, factor, target, kept, scale, zero, zero


@torch.library.custom_op("warpseg::focal", mutates_args=())
def _focal(
    logits: Tensor, mask: Tensor, gamma: float, weight: Tensor | None, ignore: int
) -> tuple[Tensor, Tensor]:
    return launch(
        _pixel,
        logits,
        mask,
        ignore=ignore,
        option=int(weight is not None),
        table=weight,
        parameters=(gamma, 0.0, 0.0),
    )


register(_focal)


def focal(
    logits: Tensor,
    mask: Tensor,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    denominator: str | Tensor = "kept",
    ignore: int = IGNORE,
) -> Tensor:
    """Return the mean focal loss, 0-d float32.

    `logits` (N, C, h, w) at stride s of any float dtype and memory format; `mask` (N, H, W) of
    integers; `gamma` 0 or more, 0 is cross-entropy; `weight` (C,) per class. `denominator` and
    masks of no class: as in `cross_entropy`. Gradient: to the logits.

    Raises ValueError for shapes, dtypes, numbers and names that do not fit.
    """
    check_targets(logits, mask)
    if not 0 <= gamma < 100:
        raise ValueError(f"gamma must be 0 or more, below 100; got {gamma}")
    if weight is not None and weight.shape != logits.shape[1:2]:
        raise ValueError(f"weight must be ({logits.shape[1]},); got {tuple(weight.shape)}")
    if use_op(logits, mask, weight):
        loss, counts = totals_of(_focal(logits, mask, gamma, weight, ignore))
    else:
        loss, counts = focal_reference(logits, mask, gamma, weight, ignore)
    return divide(loss, choose_denominator(denominator, counts[0], mask, weights=counts[1]))


def compile_cases() -> list[CompileCase]:
    """List the kernel without and with class weights, and for many classes."""
    return [
        *loss_cases("focal-plain", _pixel, classes=(21, 81, 150, 171)),
        *loss_cases("focal-weighted", _pixel, options=(1,), table="*fp32", coarse=()),
    ]
