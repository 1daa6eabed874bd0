"""Cross-entropy of stride-s logits against a full-resolution mask.

    L = sum_i w[y_i] * -log softmax(z_i)[y_i] / D,    z = bilinear upsampling of the logits

over the pixels i whose mask is not `ignore`; D is their number (`kept`), the number of all pixels
(`all`), the sum of their weights (`weights`) or a given number. Bytes: `cells.py`, with one per
pixel for the mask.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ... import IGNORE
from ..cells import logit_of
from ..compile import CompileCase
from ..dispatch import use_op
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


def cross_entropy_reference(
    logits: Tensor, mask: Tensor, weight: Tensor | None = None, ignore: int = IGNORE
) -> Totals:
    """Sum the weighted cross-entropy in plain PyTorch; counts: kept pixels, sum of weights."""
    terms = pixel_terms(logits, mask, ignore)
    scale = terms.kept.to(terms.log_prob.dtype)
    if weight is not None:
        scale = scale * weight.to(scale.dtype)[terms.target]
    return totals(-scale * terms.target_log_prob, terms.kept, scale)


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
    first_parameter,
    second_parameter,
    third_parameter,
    NUM_CLASSES: tl.constexpr,
    WEIGHTED: tl.constexpr,
):
    """Return loss, factor, target, kept and counts of one pixel per lane."""
    log_prob = logit_of(z, cls, target, NUM_CLASSES) - largest - tl.log(total)
    scale = tl.where(kept, 1.0, 0.0)
    if WEIGHTED:
        known = kept & (target >= 0) & (target < NUM_CLASSES)
        scale = tl.load(weight_ptr + target, mask=known, other=0.0).to(tl.float32)
    zero = tl.zeros_like(scale)
    return -scale * log_prob, scale, target, kept, scale, zero, zero


@torch.library.custom_op("warpseg::cross_entropy", mutates_args=())
def _cross_entropy(
    logits: Tensor, mask: Tensor, weight: Tensor | None, ignore: int
) -> tuple[Tensor, Tensor]:
    return launch(
        _pixel,
        logits,
        mask,
        ignore=ignore,
        option=int(weight is not None),
        table=weight,
    )


register(_cross_entropy)


def cross_entropy(
    logits: Tensor,
    mask: Tensor,
    *,
    weight: Tensor | None = None,
    denominator: str | Tensor = "kept",
    ignore: int = IGNORE,
) -> Tensor:
    """Return the mean cross-entropy, 0-d float32.

    `logits` (N, C, h, w) at stride s of any float dtype and memory format, 1 to 256 classes; `mask`
    (N, H, W) of integers; `weight` (C,) per class. `denominator`: "kept" (pixels that are not
    `ignore`), "all" (N * H * W), "weights" (sum of the kept pixels' weights) or a 0-d tensor, by
    which ranks may share one. Without kept pixels the loss and its gradient are 0. A mask value
    that is neither a class nor `ignore` is an error on the CPU and makes the loss NaN on a GPU.
    Gradient: to the logits.

    Raises ValueError for shapes, dtypes and names that do not fit.
    """
    check_targets(logits, mask)
    if weight is not None and weight.shape != logits.shape[1:2]:
        raise ValueError(f"weight must be ({logits.shape[1]},); got {tuple(weight.shape)}")
    if use_op(logits, mask, weight):
        loss, counts = totals_of(_cross_entropy(logits, mask, weight, ignore))
    else:
        loss, counts = cross_entropy_reference(logits, mask, weight, ignore)
    return divide(loss, choose_denominator(denominator, counts[0], mask, weights=counts[1]))


def compile_cases() -> list[CompileCase]:
    """List the kernel without and with class weights, and for as many classes as COCO,
    ADE20K and COCO-Stuff have."""
    weighted = {"options": (1,), "table": "*fp32", "coarse": ()}
    classes = (19, 21, 81, 150, 171)
    return [
        *loss_cases("cross_entropy-plain", _pixel, classes=classes, coarse=(21,)),
        *loss_cases("cross_entropy-weighted", _pixel, classes=(21,), **weighted),
    ]
