"""The dynamic cross-entropy of mutual training (DMT, Eq. 6-7) and its ablations.

For a pixel with pseudo-label y_A of confidence c_A from the other model, this model's probability
p_B of y_A, prediction y_B and confidence c_B, all weights without gradient:

    L = sum_i w_i * -log p_B,i / D        w = p_B^gamma1   y_A = y_B                  agreement
                                              p_B^gamma2   y_A != y_B, c_A >= c_B     weaker
                                              0            y_A != y_B, c_A <  c_B     stronger

and w = 1 for pixels of labeled images. Forms (section 5.4 of the paper): `dynamic` as above;
`naive` p_B^gamma1 in all cases; `flip`: a stronger disagreement trains y_B with weight
(1 - c_A)^gamma2; `online`: y_B itself where c_B reaches a threshold, other pixels are as ignored
(online self-training); `plain`: w = 1 (CBST). Bytes: `cells.py`, with a label and a confidence per
pixel.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ... import IGNORE
from ..cells import first_largest, hidden, logit_of
from ..compile import CompileCase
from ..dispatch import use_op
from ..pixel_loss import (
    PixelTerms,
    Totals,
    check_targets,
    choose_denominator,
    divide,
    pixel_terms,
    totals,
    totals_of,
)
from .cell_loss import launch, loss_cases, register

FORMS = ("dynamic", "naive", "flip", "online", "plain")


class Cases(NamedTuple):
    """How many kept pseudo-labeled pixels fell in each case of Eq. 6: 0-d float32 counts."""

    agree: Tensor
    weaker: Tensor
    stronger: Tensor


def dynamic_ce_reference(
    logits: Tensor,
    pseudo_label: Tensor,
    confidence: Tensor,
    labeled: Tensor,
    gamma1: float,
    gamma2: float,
    threshold: float = 0.9,
    form: str = "dynamic",
) -> Totals:
    """Sum the loss in plain PyTorch; counts: kept pixels, agreements, weaker, stronger.

    `labeled` is (N,) bool. The three cases are counted over kept pseudo-labeled pixels.
    """
    terms = pixel_terms(logits, pseudo_label)
    judged = _judge(terms, confidence, labeled, gamma1, gamma2, form)
    log_prob, kept, given = terms.target_log_prob, terms.kept, labeled.bool()[:, None, None]
    own_log_prob = terms.log_prob.max(1).values
    if form == "flip":
        log_prob = torch.where(judged.stronger, own_log_prob, log_prob)
    elif form == "online":
        kept = kept & (given | (judged.own_prob >= threshold))
        log_prob = torch.where(given, log_prob, own_log_prob)
    # Forms that train this model's own prediction say of a label of no class what the others say.
    log_prob = torch.where(terms.target_log_prob.isnan(), torch.nan, log_prob)
    cases = (judged.agree, judged.weaker, judged.stronger)
    return totals(-judged.weight * log_prob, kept, *cases)


class _Judged(NamedTuple):
    """What the model under training makes of pseudo-labels: (N, H, W) each, without gradient.

    The three cases of Eq. 6 hold at kept pseudo-labeled pixels alone.
    """

    weight: Tensor
    own_prob: Tensor
    agree: Tensor
    weaker: Tensor
    stronger: Tensor


@torch.no_grad()
def _judge(
    terms: PixelTerms,
    confidence: Tensor,
    labeled: Tensor,
    gamma1: float,
    gamma2: float,
    form: str,
) -> _Judged:
    own_log_prob, own = terms.log_prob.max(1)
    own_prob = 1 / (terms.log_prob - own_log_prob[:, None]).exp().sum(1)
    log_prob = terms.target_log_prob
    taught = terms.kept & ~labeled.bool()[:, None, None]
    agree = own == terms.target
    stronger = ~agree & (confidence.to(own_prob.dtype) < own_prob)
    weight = torch.ones_like(log_prob)
    if form == "naive":
        weight = (gamma1 * log_prob).exp()
    elif form in ("dynamic", "flip"):
        doubt = torch.zeros_like(log_prob)
        if form == "flip":
            doubt = (1 - confidence.to(log_prob.dtype)).clamp(min=0) ** gamma2
        disagreed = torch.where(stronger, doubt, (gamma2 * log_prob).exp())
        weight = torch.where(agree, (gamma1 * log_prob).exp(), disagreed)
    return _Judged(
        torch.where(taught, weight, 1),
        own_prob,
        agree & taught,
        ~agree & ~stronger & taught,
        stronger & taught,
    )


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
    confidence_ptr,
    labeled_ptr,
    gamma1,
    gamma2,
    threshold,
    NUM_CLASSES: tl.constexpr,
    FORM: tl.constexpr,
):
    """Return loss, factor, target, kept and the three cases of one pixel per lane."""
    log_total = tl.log(total)
    log_prob = logit_of(z, cls, target, NUM_CLASSES) - largest - log_total
    if FORM == "dynamic" or FORM == "naive":
        target = hidden(target, (place >> 40).to(tl.int32))
    own = first_largest(z, largest, cls, NUM_CLASSES)
    given = target * 0 + tl.load(labeled_ptr + n).to(tl.int32) != 0
    confidence = tl.load(confidence_ptr + place, mask=kept, other=0.0).to(tl.float32)
    taught = kept & (given == 0)
    agree = own == target
    stronger = (agree == 0) & (confidence < 1.0 / total)
    weight = tl.where(kept, 1.0, 0.0)
    if FORM == "dynamic" or FORM == "flip":
        gamma = tl.where(agree, gamma1, gamma2)
        doubt = tl.zeros_like(log_prob)
        if FORM == "flip":
            # A stronger disagreement has c_A < c_B <= 1; other pixels do not read this.
            doubt = tl.exp2(gamma2 * tl.log2(tl.maximum(1 - confidence, 1e-30)))
        weight = tl.where(stronger, doubt, tl.exp(gamma * log_prob))
    if FORM == "naive":
        weight = tl.exp(gamma1 * log_prob)
    weight = tl.where(given, 1.0, weight)
    if FORM == "flip":
        target = tl.where(stronger & taught, own, target)
        log_prob = tl.where(stronger & taught, -log_total, log_prob)
    counted = kept
    if FORM == "online":
        target = tl.where(taught, own, target)
        log_prob = tl.where(taught, -log_total, log_prob)
        counted = kept & (given | (1.0 / total >= threshold))
    agreements = tl.where(taught & agree, 1.0, 0.0)
    strongers = tl.where(taught & stronger, 1.0, 0.0)
    weakers = tl.where(taught, 1.0, 0.0) - agreements - strongers
    return -weight * log_prob, weight, target, counted, agreements, weakers, strongers


@torch.library.custom_op("warpseg::dynamic_ce", mutates_args=())
def _dynamic_ce(
    logits: Tensor,
    pseudo_label: Tensor,
    confidence: Tensor,
    labeled: Tensor,
    gamma1: float,
    gamma2: float,
    threshold: float,
    form: str,
) -> tuple[Tensor, Tensor]:
    return launch(
        _pixel,
        logits,
        pseudo_label,
        ignore=IGNORE,
        option=form,
        map=confidence,
        table=labeled,
        parameters=(gamma1, gamma2, threshold),
        spread=True,
    )


register(_dynamic_ce)


def dynamic_ce(
    logits: Tensor,
    pseudo_label: Tensor,
    confidence: Tensor,
    *,
    labeled: Tensor | None = None,
    gamma1: float = 5.0,
    gamma2: float = 5.0,
    form: str = "dynamic",
    threshold: float = 0.9,
    denominator: str | Tensor = "kept",
) -> tuple[Tensor, Cases]:
    """Return the loss, 0-d float32, and the counts of the three cases.

    `logits` (N, C, h, w) at stride s; `pseudo_label` (N, H, W) of integers, IGNORE where there is
    none, the true mask for labeled images; `confidence` (N, H, W) of any float dtype, in [0, 1];
    `labeled` (N,) bool marks the images whose pixels all weigh 1. `denominator`: "kept" (pixels
    that are not IGNORE, of the whole batch, as the official code divides), "all", or a 0-d tensor.
    With gamma1 = gamma2 = 0 the form "dynamic" is "plain", as in the official code: all pixels
    weigh 1. `threshold` belongs to the form "online". Gradient: to the logits, weights detached.

    Raises ValueError for shapes, dtypes and names that do not fit and for a negative gamma.
    """
    labeled, form = _check(logits, pseudo_label, confidence, labeled, gamma1, gamma2, form)
    arguments = (logits, pseudo_label, confidence, labeled, gamma1, gamma2, threshold, form)
    if use_op(logits, pseudo_label, confidence, labeled):
        loss, counts = totals_of(_dynamic_ce(*arguments))
    else:
        loss, counts = dynamic_ce_reference(*arguments)
    loss = divide(loss, choose_denominator(denominator, counts[0], pseudo_label))
    return loss, Cases(counts[1], counts[2], counts[3])


def dynamic_weights(
    logits: Tensor,
    pseudo_label: Tensor,
    confidence: Tensor,
    *,
    labeled: Tensor | None = None,
    gamma1: float = 5.0,
    gamma2: float = 5.0,
    form: str = "dynamic",
) -> tuple[Tensor, Cases]:
    """Return the weights alone, (N, H, W) float32 without gradient, and the counts of the cases.

    For losses that use the weights otherwise (mixup), and for drawing them (Figure 6): in plain
    PyTorch. Arguments as in `dynamic_ce`; pixels that are IGNORE weigh 0.
    """
    labeled, form = _check(logits, pseudo_label, confidence, labeled, gamma1, gamma2, form)
    terms = pixel_terms(logits.detach(), pseudo_label)
    judged = _judge(terms, confidence, labeled, gamma1, gamma2, form)
    counts = [case.sum() for case in (judged.agree, judged.weaker, judged.stronger)]
    return torch.where(terms.kept, judged.weight, 0), Cases(*counts)


def _check(
    logits: Tensor,
    pseudo_label: Tensor,
    confidence: Tensor,
    labeled: Tensor | None,
    gamma1: float,
    gamma2: float,
    form: str,
) -> tuple[Tensor, str]:
    """Check the arguments; return which images are labeled, and the form that acts."""
    check_targets(logits, pseudo_label, confidence)
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
    if not confidence.is_floating_point():
        raise ValueError(f"confidence must be floating point; got {confidence.dtype}")
    if min(gamma1, gamma2) < 0:
        raise ValueError(f"gamma1 and gamma2 must not be negative; got {gamma1} and {gamma2}")
    if labeled is None:
        labeled = torch.zeros(logits.shape[0], dtype=torch.bool, device=logits.device)
    elif labeled.shape != logits.shape[:1]:
        raise ValueError(f"labeled must be ({logits.shape[0]},); got {tuple(labeled.shape)}")
    return labeled, "plain" if form == "dynamic" and gamma1 == gamma2 == 0 else form


def compile_cases() -> list[CompileCase]:
    """List the kernel in each of its forms, and the first for many classes."""
    types: dict[str, Any] = {"map": "*fp32", "table": "*i1", "spread": True}
    many: dict[str, Any] = {"classes": (81, 150, 171), "coarse": ()}
    return [
        *loss_cases("dynamic_ce", _pixel, options=FORMS, **types),
        *loss_cases("dynamic_ce-dynamic", _pixel, options=FORMS[:1], **many, **types),
    ]
