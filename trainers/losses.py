"""What the losses of several methods share."""

from torch import Tensor, nn

from .. import IGNORE
from ..kernels import cross_entropy
from ..pipelines.batches import LabeledBatch
from .runtime import Runtime


def supervised_loss(network: nn.Module, labeled: LabeledBatch, runtime: Runtime) -> Tensor:
    """Return the mean cross-entropy over the labeled pixels of all ranks, a 0-d float32 tensor."""
    count = runtime.average((labeled.mask != IGNORE).sum())
    return cross_entropy(network(labeled.image), labeled.mask, denominator=count)
