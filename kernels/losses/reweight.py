"""The confidence-weighted cross-entropy of GTA-Seg (Eq. 6-7).

    w_i = (c_i + tau) 1[c_i > gamma],    L = sum_i w_i CE_i / D

with the teacher's confidence c, its threshold gamma (the 20 % quantile in the published runs) and
Laplace smoothing tau. D = sum_i w_i over the kept pixels, the mean that Eq. 6 describes (`kept`),
or, as the official code, plus tau for every dropped pixel (`all`), about 12 % more at 20 % dropped.
The threshold is read on the device. Bytes: `cells.py`, with a label and a confidence per pixel.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ... import IGNORE
from ..cells import logit_of
from ..compile import CompileCase
from ..dispatch import use_op
from ..pixel_loss import Totals, check_targets, divide, pixel_terms, totals, totals_of
from .cell_loss import launch, loss_cases, register

NORMALIZERS = ("kept", "all")


def reweight_reference(
    logits: Tensor, label: Tensor, confidence: Tensor, threshold: Tensor, smoothing: float = 1.0
) -> Totals:
    """Sum in plain PyTorch; counts: kept pixels, their weights, dropped pixels."""
    terms = pixel_terms(logits, label)
    above = terms.kept & (confidence.float() > threshold)
    weight = torch.where(above, confidence.to(terms.log_prob.dtype) + smoothing, 0)
    return totals(-weight * terms.target_log_prob, above, weight, terms.kept & ~above)


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
    threshold_ptr,
    smoothing,
    second_parameter,
    third_parameter,
    NUM_CLASSES: tl.constexpr,
    OPTION: tl.constexpr,
):
    """Return loss, factor, target, kept and counts of one pixel per lane."""
    log_prob = logit_of(z, cls, target, NUM_CLASSES) - largest - tl.log(total)
    confidence = tl.load(confidence_ptr + place, mask=kept, other=0.0).to(tl.float32)
    above = kept & (confidence > tl.load(threshold_ptr))
    weight = tl.where(above, confidence + smoothing, 0.0)
    dropped = tl.where(kept, 1.0, 0.0) - tl.where(above, 1.0, 0.0)
    return -weight * log_prob, weight, target, above, weight, dropped, tl.zeros_like(weight)


@torch.library.custom_op("warpseg::reweight", mutates_args=())
def _reweight(
    logits: Tensor, label: Tensor, confidence: Tensor, threshold: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    return launch(
        _pixel,
        logits,
        label,
        ignore=IGNORE,
        map=confidence,
        table=threshold,
        parameters=(smoothing, 0.0, 0.0),
    )


register(_reweight)


def reweight(
    logits: Tensor,
    label: Tensor,
    confidence: Tensor,
    *,
    threshold: Tensor | float,
    normalizer: str | Tensor = "kept",
    smoothing: float = 1.0,
) -> Tensor:
    """Return the confidence-weighted cross-entropy, 0-d float32.

    `logits` (N, C, h, w) at stride s; `label` (N, H, W) of integers, IGNORE where there is none;
    `confidence` (N, H, W) of any float dtype; `threshold` a number or a 0-d tensor
    (`quantile`), below or at which pixels are dropped, compared in float32. `normalizer`:
    "kept", "all" or a 0-d tensor. Gradient: to the logits.

    Raises ValueError for shapes, dtypes and names that do not fit.
    """
    check_targets(logits, label, confidence)
    if not confidence.is_floating_point():
        raise ValueError(f"confidence must be floating point; got {confidence.dtype}")
    if isinstance(normalizer, str) and normalizer not in NORMALIZERS:
        raise ValueError(f"normalizer must be kept, all or a 0-d tensor; got {normalizer!r}")
    if not isinstance(threshold, Tensor):
        threshold = torch.full((), threshold, device=logits.device)
    threshold = threshold.to(logits.device, torch.float32)
    if threshold.ndim or (not isinstance(normalizer, str) and normalizer.ndim):
        raise ValueError("threshold and normalizer must be 0-d tensors, names or numbers")
    if use_op(logits, label, confidence):
        outputs = _reweight(logits, label, confidence, threshold, smoothing)
        loss, counts = totals_of(outputs)
    else:
        loss, counts = reweight_reference(logits, label, confidence, threshold, smoothing)
    if isinstance(normalizer, str):
        normalizer = counts[1] + smoothing * counts[2] * (normalizer == "all")
    return divide(loss, normalizer)


def compile_cases() -> list[CompileCase]:
    """List the kernel for few classes and many."""
    classes = (21, 81, 150, 171)
    return loss_cases("reweight", _pixel, map="*fp32", table="*fp32", classes=classes)
