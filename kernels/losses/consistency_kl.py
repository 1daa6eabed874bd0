"""One-way consistency: KL between the warped teacher distribution and the student's.

One-way consistency paper, Eq. 3 to 5. At each valid pixel q of the strong view,

    L(q) = sum_c p_t(c) (ln p_t(c) - ln p_s(c)),    p_t = warp(softmax(upsample(teacher))) at q,
                                                    p_s = softmax(upsample(student)) at q,

and the loss is the mean of L over the valid pixels. Variants: the teacher's logits are warped
instead of its probabilities (the released code), the squared L2 distance of the distributions
instead of KL, pixels of low teacher confidence left out (MT-CutMix), the mean taken per image
first.
"""

import torch
from torch import Tensor

from ..dispatch import use_op
from ..upsample import LOWEST, upsample_logits
from ..views.tps import TPS, inside, source_positions
from ..views.warp import sample_bilinear
from .consistency_kl_op import consistency_kl_op

__all__ = ["consistency_kl", "consistency_kl_reference"]

_TINY = 1e-37


def consistency_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    size: tuple[int, int],
    tps: TPS | None = None,
    valid: Tensor | None = None,
    blend: str = "probabilities",
    divergence: str = "kl",
    threshold: float | None = None,
    reduction: str = "pooled",
    denominator: Tensor | None = None,
) -> Tensor:
    """Return the consistency loss, a 0-d float32, with gradient to the student only.

    student_logits: (N, C, h, w) of the strong view; teacher_logits: the same shape, of the weak
    view; both at the stride that `size`, the full resolution (H, W), implies. tps: the warp from
    weak to strong (None: the views agree pixel by pixel). valid: (N, H, W) bool, pixels to count;
    pixels whose source lies outside of the image never count.

    blend: "probabilities" (the warped distribution) or "logits" (softmax of warped logits).
    divergence: "kl", or "squared_l2", sum_c (p_s - p_t)^2. threshold: pixels whose largest p_t does
    not exceed it contribute 0, but stay in the denominator (MT-CutMix averages over all pixels).
    reduction: "pooled", sum over the pixels of the batch / their number; "per_image", the mean over
    the images (those with a valid pixel) of each image's mean (Eq. 4). denominator: a 0-d tensor to
    divide by instead: of the number of valid pixels, or of images ("per_image").
    Nothing valid gives loss 0 and gradient 0. Raises ValueError for other shapes or words.
    """
    points = None if tps is None else tps.points
    if not use_op(student_logits, teacher_logits, points, valid):
        return consistency_kl_reference(
            student_logits,
            teacher_logits.detach(),
            size=size,
            tps=tps,
            valid=valid,
            blend=blend,
            divergence=divergence,
            threshold=threshold,
            reduction=reduction,
            denominator=denominator,
        )
    check_consistency(
        student_logits, teacher_logits, size, tps, valid, blend, divergence, reduction
    )
    losses, counts, _ = consistency_kl_op(
        student_logits,
        teacher_logits.detach(),
        *size,
        points,
        None if tps is None else tps.weights,
        valid,
        blend == "logits",
        divergence == "squared_l2",
        threshold,
    )
    return _reduce(losses, counts, reduction, denominator)


def consistency_kl_reference(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    size: tuple[int, int],
    tps: TPS | None = None,
    valid: Tensor | None = None,
    blend: str = "probabilities",
    divergence: str = "kl",
    threshold: float | None = None,
    reduction: str = "pooled",
    denominator: Tensor | None = None,
    reverse: bool = False,
    hard: bool = False,
) -> Tensor:
    """Define `consistency_kl` in plain PyTorch, differentiable in both logits.

    The ablations 1w-cs and 2w-c1 need the teacher's gradient; detach the side that must get none.
    reverse: the student's distribution is the target, KL(p_s || p_t), and its confidence the one
    that `threshold` is held against. hard: the target is one-hot, at its likeliest class.
    """
    check_consistency(
        student_logits, teacher_logits, size, tps, valid, blend, divergence, reduction
    )
    teacher, within = _warped_distribution(teacher_logits, size, tps, blend)
    counted = _join(valid, within, student_logits, size)
    student = _full_resolution(student_logits, size)
    target = student.softmax(1) if reverse else teacher
    kept = counted if threshold is None else counted & (target.amax(1) > threshold)
    if hard:
        target = torch.zeros_like(target).scatter_(1, target.argmax(1, keepdim=True), 1)
    if divergence == "squared_l2":
        loss = ((teacher if reverse else student.softmax(1)) - target).square().sum(1)
    else:
        loss = _kl(_log(teacher) if reverse else student.log_softmax(1), target)
    # where, not a product: what is not counted must not spread a NaN.
    losses = torch.where(kept, loss, 0).sum((1, 2))
    return _reduce(losses, counted.sum((1, 2)), reduction, denominator)


def check_consistency(
    student: Tensor,
    teacher: Tensor,
    size: tuple[int, int],
    tps: TPS | None,
    valid: Tensor | None,
    blend: str,
    divergence: str,
    reduction: str,
) -> None:
    """Raise ValueError for what `consistency_kl` cannot take."""
    words = {
        "blend": (blend, ("probabilities", "logits")),
        "divergence": (divergence, ("kl", "squared_l2")),
        "reduction": (reduction, ("pooled", "per_image")),
    }
    for name, (word, known) in words.items():
        if word not in known:
            raise ValueError(f"{name} must be {' or '.join(known)}; got {word!r}")
    if student.ndim != 4 or student.shape != teacher.shape:
        raise ValueError(
            "student and teacher logits must both be (N, C, h, w); "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    batch = student.shape[0]
    if valid is not None and valid.shape != (batch, *size):
        raise ValueError(f"valid must be {(batch, *size)}; got {tuple(valid.shape)}")
    if tps is not None and len(tps) != batch:
        raise ValueError(f"one spline per image: got {len(tps)} for {batch} images")


def _warped_distribution(
    logits: Tensor, size: tuple[int, int], tps: TPS | None, blend: str
) -> tuple[Tensor, Tensor | None]:
    """Return p_t, (N, C, H, W), and where its source lies within the image (None: everywhere)."""
    full = _full_resolution(logits, size)
    if tps is None:
        return full.softmax(1), None
    x, y = source_positions(tps, size)
    if blend == "logits":
        warped = sample_bilinear(full, x, y).softmax(1)
    else:
        warped = sample_bilinear(full.softmax(1), x, y)
    return warped, inside(x, y, size, None)


def _full_resolution(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample in float32 or wider, as planes: the CPU's softmax is slow on channels-last."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return upsample_logits(logits.to(wide, memory_format=torch.contiguous_format), size)


def _join(
    valid: Tensor | None, within: Tensor | None, logits: Tensor, size: tuple[int, int]
) -> Tensor:
    """Return the pixels that count, (N, H, W) bool."""
    if valid is None and within is None:
        return torch.ones(logits.shape[0], *size, dtype=torch.bool, device=logits.device)
    if valid is None or within is None:
        return valid if within is None else within  # type: ignore[return-value]
    return valid & within


def _kl(log_prediction: Tensor, target: Tensor) -> Tensor:
    """Eq. 5 per pixel; 0 ln 0 = 0."""
    loss = (target * (_log(target) - log_prediction)).sum(1)
    # A class that the prediction has masked out, and the target has not.
    return torch.where(loss > -LOWEST, torch.inf, loss)


def _log(prob: Tensor) -> Tensor:
    return prob.clamp_min(_TINY).log()


def _reduce(losses: Tensor, counts: Tensor, reduction: str, denominator: Tensor | None) -> Tensor:
    """Divide the images' sums by the number of what is averaged; an empty mean is 0."""
    if reduction == "per_image":
        losses, counts = losses / counts.clamp_min(1), counts > 0
    number = counts.sum() if denominator is None else denominator
    return losses.sum() / torch.where(number > 0, number, 1)
