"""Confusion matrix of stride-s logits against a full-resolution mask.

    M[t, p] = number of pixels of true class t whose largest upsampled logit is p's

Ties go to the lowest class. Evaluation sums it over images; every score is a function of M.
Bytes per pixel: 1 for the mask and 3bC/s^2 for logits of b bytes (turned to class rows once).
Pixels are counted by integer atomics, spread over several copies of the matrix because most pixels
of an image belong to few of its entries.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ... import IGNORE
from ..cells import first_largest
from ..compile import CompileCase
from ..dispatch import use_op
from ..pixel_loss import check_targets
from ..upsample import upsample_logits
from .walk import launch_walk, walk_cases


def confusion_reference(logits: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """Count in plain PyTorch: (num_classes, num_classes) int64."""
    full = logits if logits.dtype == torch.float64 else logits.float()
    predicted = upsample_logits(full, (mask.shape[1], mask.shape[2])).argmax(1)
    true = mask.long()
    counted = (true != IGNORE) & (true >= 0) & (true < num_classes)
    pair = (true * num_classes + predicted)[counted]
    return torch.bincount(pair, minlength=num_classes**2).view(num_classes, num_classes)


@triton.jit
def _visit(
    z, largest, cls, true, inside, place, table_ptr, copy, ignore, NUM_CLASSES: tl.constexpr
):
    """Count the pixels."""
    predicted = first_largest(z, largest, cls, NUM_CLASSES)
    counted = inside & (true != ignore) & (true >= 0) & (true < NUM_CLASSES)
    counted = counted & (predicted < NUM_CLASSES)
    pair = true * NUM_CLASSES + predicted
    table = table_ptr + copy * NUM_CLASSES * NUM_CLASSES
    tl.atomic_add(table + pair, tl.where(counted, 1, 0), mask=counted, sem="relaxed")


@torch.library.custom_op("warpseg::confusion", mutates_args=())
def _confusion(logits: Tensor, mask: Tensor) -> Tensor:
    classes = logits.shape[1]
    copies = max(1, min(64, 2**18 // classes**2))
    table = torch.zeros((copies, classes, classes), dtype=torch.int32, device=logits.device)
    launch_walk(_visit, logits, mask, table, copies)
    return table.sum(0)


@_confusion.register_fake
def _(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.new_empty((logits.shape[1], logits.shape[1]), dtype=torch.int64)


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
    logits = logits.detach()
    if use_op(logits, mask):
        counts = _confusion(logits, mask)
    else:
        counts = confusion_reference(logits, mask, num_classes)
    return counts if out is None else out.add_(counts)


def compile_cases() -> list[CompileCase]:
    """List the kernel at the recipes' class counts."""
    return walk_cases("confusion", _visit, "*i32", 0)
