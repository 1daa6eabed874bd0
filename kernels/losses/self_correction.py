"""The self-correction loss of SimpleBaseline (SCL, Eq. 4-5; signs, omitted there, restored).

    l_i = w_i CE_i + (1 - w_i) RCE_i,    CE = -log p_y,    RCE = -sum_k p_k log y_k = -A (1 - p_y)
    w_i = max_k p_k, detached;           A = log 0, set to a finite number

A confident pixel is taught by its pseudo-label y, an unsure one by the bounded, noise-robust
reverse cross-entropy. The official code has the roles reversed and w above .8 set to 1, so that a
confident pixel gets the reverse term only: `reversed`. A constant w of .5 is its ablation SCE.
Bytes: `cells.py`, with one per pixel for the label.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ... import IGNORE
from ..cells import hidden, logit_of
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

LOG_ZERO = math.log(1e-4)
"""A of the official code, which clamps the one-hot label to [1e-4, 1]."""

_SURE = 0.8


def self_correction_reference(
    logits: Tensor,
    label: Tensor,
    log_zero: float = LOG_ZERO,
    weight: float | None = None,
    reversed: bool = False,
) -> Totals:
    """Sum the loss in plain PyTorch; counts: kept pixels."""
    terms = pixel_terms(logits, label)
    log_prob = terms.target_log_prob
    trust = terms.log_prob.detach().amax(1).exp()
    if weight is not None:
        trust = torch.full_like(trust, weight)
    elif reversed:
        trust = torch.where(trust > _SURE, 1, trust)
    if reversed:
        trust = 1 - trust
    reverse = -log_zero * (1 - log_prob.exp())
    return totals(-trust * log_prob + (1 - trust) * reverse, terms.kept)


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
    table_ptr,
    log_zero,
    weight,
    sure,
    NUM_CLASSES: tl.constexpr,
    OPTION: tl.constexpr,
):
    """Return loss, factor, target, kept and counts of one pixel per lane."""
    log_prob = logit_of(z, cls, target, NUM_CLASSES) - largest - tl.log(total)
    prob = tl.exp(log_prob)
    trust = 1.0 / total
    if OPTION == "constant" or OPTION == "constant reversed":
        trust = tl.zeros_like(total) + weight
    elif OPTION == "reversed":
        trust = tl.where(trust > sure, 1.0, trust)
    if OPTION == "reversed" or OPTION == "constant reversed":
        trust = 1 - trust
    doubt = -log_zero * (1 - trust)
    zero = tl.zeros_like(total)
    loss = doubt * (1 - prob) - trust * log_prob
    target = hidden(target, (place >> 40).to(tl.int32))
    return loss, trust + doubt * prob, target, kept, zero, zero, zero


@torch.library.custom_op("warpseg::self_correction", mutates_args=())
def _self_correction(
    logits: Tensor, label: Tensor, log_zero: float, weight: float | None, reversed: bool
) -> tuple[Tensor, Tensor]:
    name = "constant" if weight is not None else ("" if reversed else "paper")
    return launch(
        _pixel,
        logits,
        label,
        ignore=IGNORE,
        option=f"{name} reversed".strip() if reversed else name,
        parameters=(log_zero, 0.0 if weight is None else weight, _SURE),
    )


register(_self_correction)


def self_correction(
    logits: Tensor,
    label: Tensor,
    *,
    log_zero: float = LOG_ZERO,
    weight: float | None = None,
    reversed: bool = False,
    denominator: str | Tensor = "kept",
) -> Tensor:
    """Return the self-correction loss, 0-d float32.

    `logits` (N, C, h, w) at stride s; `label` (N, H, W) of integers, IGNORE where there is none.
    `log_zero` is A, negative; `weight` a constant w in [0, 1] instead of the confidence; `reversed`
    the official code's form. `denominator`: "kept", "all" (as the official code) or a 0-d tensor.
    Gradient: to the logits; w is detached.

    Raises ValueError for shapes, dtypes and values that do not fit.
    """
    check_targets(logits, label)
    if log_zero >= 0:
        raise ValueError(f"log_zero stands for log 0 and must be negative; got {log_zero}")
    if weight is not None and not 0 <= weight <= 1:
        raise ValueError(f"weight must be in [0, 1]; got {weight}")
    if use_op(logits, label):
        outputs = _self_correction(logits, label, log_zero, weight, reversed)
        loss, counts = totals_of(outputs)
    else:
        loss, counts = self_correction_reference(logits, label, log_zero, weight, reversed)
    return divide(loss, choose_denominator(denominator, counts[0], label))


def compile_cases() -> list[CompileCase]:
    """List the kernel as published and in the official form, for few classes and many."""
    return loss_cases(
        "self_correction", _pixel, options=("paper", "reversed"), classes=(21, 81, 150, 171)
    )
