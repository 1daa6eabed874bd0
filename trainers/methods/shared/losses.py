"""What the losses of several methods share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .... import IGNORE
from ....kernels import cross_entropy, dice, focal, upsample
from ....pipelines.batches import LabeledBatch
from ...engine.runtime import Runtime
from ...engine.settings import RunSettings


def mean_cross_entropy(logits: Tensor, mask: Tensor, runtime: Runtime) -> Tensor:
    """Return the mean cross-entropy over the kept pixels of all ranks, a 0-d float32 tensor.

    logits (N, C, h, w); mask (N, H, W) integer, IGNORE where not kept.
    """
    if runtime.world_size == 1:
        return cross_entropy(logits, mask)  # it counts them itself
    count = runtime.average((mask != IGNORE).sum())
    return cross_entropy(logits, mask, denominator=count)


def label_loss(logits: Tensor, mask: Tensor, settings: RunSettings, runtime: Runtime) -> Tensor:
    """Return the mean cross-entropy over the labeled pixels of all ranks, or what the settings have
    for rare classes in its place; a 0-d float32 tensor.

    logits (N, C, h, w); mask (N, H, W) integer, IGNORE where not labeled.
    """
    rare = settings.rare
    if rare.focal:
        count = runtime.average((mask != IGNORE).sum())
        loss = focal(logits, mask, gamma=rare.focal, denominator=count)
    else:
        loss = mean_cross_entropy(logits, mask, runtime)
    return loss + dice_term(logits, mask, settings, runtime) if rare.dice else loss


def dice_term(logits: Tensor, mask: Tensor, settings: RunSettings, runtime: Runtime) -> Tensor:
    """Return the dice loss of the labeled pixels of all ranks by its weight, 0-d."""
    return settings.rare.dice * dice(logits, mask, average=runtime.average)


def supervised_loss(
    network: nn.Module, labeled: LabeledBatch, settings: RunSettings, runtime: Runtime
) -> Tensor:
    """Return the loss of a network over the labeled pixels of all ranks (`label_loss`)."""
    return label_loss(network(labeled.image), labeled.mask, settings, runtime)


def mean_entropy(logits: Tensor, valid: Tensor | None, runtime: Runtime) -> Tensor:
    """Return the mean entropy of predictions over the valid pixels of all ranks, 0-d.

    logits (N, C, h, w); valid (N, H, W) bool, or None for images that are classified as wholes.
    """
    if valid is not None:
        logits = upsample(logits, (valid.shape[-2], valid.shape[-1]))
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_prob = wide.log_softmax(1)
    entropy = -(log_prob.exp() * log_prob).sum(1)
    if valid is None:
        return entropy.mean()
    count = runtime.average(valid.sum())
    return torch.where(valid, entropy, 0).sum() / torch.where(count > 0, count, 1)


def at_stride(logits: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Shrink logits (N, C, h, w) of an image of some size to a stride, bilinearly.

    Logits that are as coarse already are returned as they are.
    """
    coarse = [-(-extent // stride) for extent in size]
    if coarse[0] >= logits.shape[-2] and coarse[1] >= logits.shape[-1]:
        return logits
    return F.interpolate(logits, coarse, mode="bilinear", align_corners=False)
