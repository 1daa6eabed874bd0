"""Count, mean and squared deviations of the features of each class, in one pass.

The batch's contribution to the class statistics of MKD section 3.2 (Var and Mean per class and
channel), and the label lookup that feature-space augmentation shares. Moved per stride-s pixel: the
features once (2 A bytes in bfloat16) and a label.
"""

import torch
from torch import Tensor

from ... import IGNORE
from ..dispatch import use_op
from ..nearest import at_centres
from ..upsample import stride_of
from .class_moments_triton import class_moments_op

__all__ = ["class_moments", "class_moments_reference"]


def class_moments_reference(
    feature: Tensor, label: Tensor, num_classes: int, ignore: int = IGNORE
) -> tuple[Tensor, Tensor, Tensor]:
    """Do what `class_moments` does in plain PyTorch: the definition, on any device."""
    index = class_index(feature, label, num_classes, ignore).flatten()
    channels = feature.shape[1]
    flat = feature.detach().movedim(1, -1).reshape(-1, channels)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    # What does not count may be anything, also NaN.
    flat = torch.where((index < num_classes)[:, None], flat, 0)
    rows = flat.new_zeros(num_classes + 1, channels)
    count = torch.zeros(num_classes + 1, dtype=torch.int64, device=flat.device)
    count = count.index_add(0, index, torch.ones_like(index))
    mean = rows.index_add(0, index, flat) / count.clamp(min=1)[:, None]
    squares = rows.index_add(0, index, (flat - mean[index]).square())
    return count[:-1], mean[:-1], squares[:-1]


def class_index(map: Tensor, label: Tensor, num_classes: int, ignore: int) -> Tensor:
    """Return (N, h, w) int64: the class of each cell, num_classes where it counts for nothing."""
    label = at_centres(label, stride_of(map, (label.shape[1], label.shape[2]))).long()
    counts = (label >= 0) & (label < num_classes) & (label != ignore)
    return torch.where(counts, label, num_classes)


def class_moments(
    feature: Tensor, label: Tensor, num_classes: int, ignore: int = IGNORE
) -> tuple[Tensor, Tensor, Tensor]:
    """Reduce the features of each class to count, mean and summed squared deviations.

    feature: (N, A, h, w), any dtype; no gradient. label: as for `feature_shift`. Returns count (C,)
    int64, mean (C, A) float32 (0 for a class without pixels), squares (C, A) float32.

    Raises ValueError for shapes and dtypes that do not fit.
    """
    check_map(feature, label)
    if not use_op(feature, label):
        return class_moments_reference(feature, label, num_classes, ignore)
    return class_moments_op(feature.detach(), label, num_classes, ignore)


def check_map(map: Tensor, label: Tensor) -> None:
    """Check a stride-s map (N, C, h, w) of any float dtype and its labels (N, H, W) of integers.

    Raises ValueError for other ranks and dtypes, different batch sizes, and sizes of which no
    stride makes (h, w) from (H, W).
    """
    if map.ndim != 4 or not map.is_floating_point():
        raise ValueError(
            f"expected a floating-point map (N, C, h, w); got {tuple(map.shape)} {map.dtype}"
        )
    if label.ndim != 3 or label.is_floating_point() or label.shape[0] != map.shape[0]:
        raise ValueError(
            f"label must be ({map.shape[0]}, H, W) of integers; got {tuple(label.shape)} "
            f"{label.dtype}"
        )
    stride_of(map, (label.shape[1], label.shape[2]))
