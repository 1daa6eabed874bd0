"""Confusion matrix of stride-s logits against a full-resolution mask.

    M[t, p] = number of pixels of true class t whose largest upsampled logit is p's

Ties go to the lowest class. Evaluation sums it over images; every score is a function of M.
"""

import torch
from torch import Tensor

from .. import IGNORE
from .pixel_loss import check_targets
from .upsample import upsample


def confusion_reference(logits: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """Count in plain PyTorch: (num_classes, num_classes) int64."""
    full = logits if logits.dtype == torch.float64 else logits.float()
    predicted = upsample(full, (mask.shape[1], mask.shape[2])).argmax(1)
    true = mask.long()
    counted = (true != IGNORE) & (true >= 0) & (true < num_classes)
    pair = (true * num_classes + predicted)[counted]
    return torch.bincount(pair, minlength=num_classes**2).view(num_classes, num_classes)


def confusion(logits: Tensor, mask: Tensor, num_classes: int, out: Tensor | None = None) -> Tensor:
    """Return (C, C) int64 counts on the logits' device: rows true class, columns predicted.

    `logits` (N, C, h, w) at stride s, `mask` (N, H, W) of integers; pixels of IGNORE, or of no
    class, are not counted. With `out` the counts are added to it, and it is returned. No gradient,
    no host sync.

    Raises ValueError for shapes and dtypes that do not fit.
    """
    check_targets(logits, mask)
    if logits.shape[1] != num_classes:
        raise ValueError(f"logits have {logits.shape[1]} classes; expected {num_classes}")
    if out is not None and (out.shape != (num_classes, num_classes) or out.dtype != torch.int64):
        raise ValueError(
            f"out must be ({num_classes}, {num_classes}) int64; got {tuple(out.shape)} {out.dtype}"
        )
    counts = confusion_reference(logits.detach(), mask, num_classes)
    return counts if out is None else out.add_(counts)
