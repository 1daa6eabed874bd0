"""What the losses of several methods share."""

import torch.nn.functional as F
from torch import Tensor, nn

from .. import IGNORE
from ..kernels import cross_entropy
from ..pipelines.batches import LabeledBatch
from .runtime import Runtime


def mean_cross_entropy(logits: Tensor, mask: Tensor, runtime: Runtime) -> Tensor:
    """Return the mean cross-entropy over the kept pixels of all ranks, a 0-d float32 tensor.

    logits (N, C, h, w); mask (N, H, W) integer, IGNORE where not kept.
    """
    count = runtime.average((mask != IGNORE).sum())
    return cross_entropy(logits, mask, denominator=count)


def supervised_loss(network: nn.Module, labeled: LabeledBatch, runtime: Runtime) -> Tensor:
    """Return the mean cross-entropy of a network over the labeled pixels of all ranks."""
    return mean_cross_entropy(network(labeled.image), labeled.mask, runtime)


def at_stride(logits: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Shrink logits (N, C, h, w) of an image of some size to a stride, bilinearly.

    Logits that are as coarse already are returned as they are.
    """
    coarse = [-(-extent // stride) for extent in size]
    if coarse[0] >= logits.shape[-2] and coarse[1] >= logits.shape[-1]:
        return logits
    return F.interpolate(logits, coarse, mode="bilinear", align_corners=False)
