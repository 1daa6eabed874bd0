"""Feature augmentation of MKD (section 3.2): ISDA with a diagonal covariance of each class.

Moving a pixel's feature along all meaningful directions of its class y, in the limit, adds to the
logit of class k the entry S[y, k] = lambda / 2 sum_a Var[y, a] (w[k, a] - w[y, a])^2 of a C x C
table, with w the 1 x 1 classifier's weight.
"""

import math
from typing import Literal

from torch import Tensor, nn

from ... import IGNORE
from ...kernels import ClassStatistics, at_centres, feature_shift, stride_of

Ramp = Literal["half_cosine", "linear"]


class FeatureAugmentation(nn.Module):
    """The running class statistics of one network's features, and the shift they make."""

    def __init__(self, num_classes: int, width: int, strength: float, ramp: Ramp) -> None:
        super().__init__()
        self.statistics = ClassStatistics(num_classes, width)
        self.strength, self.ramp = strength, ramp

    def forward(
        self, logits: Tensor, feature: Tensor, label: Tensor, weight: Tensor, progress: float
    ) -> Tensor:
        """Add the features (N, A, h, w) to the statistics and return the shifted logits.

        label: ids (N, H, W) or (N, h, w), IGNORE where a pixel is neither counted nor shifted.
        weight: the classifier's. progress: the part of the run that is done, from 0 to 1.
        """
        self.statistics.update(feature.detach(), label)
        grown = (1 - math.cos(math.pi * progress)) / 2 if self.ramp == "half_cosine" else progress
        table = self.statistics.table(weight, self.strength * grown)
        return feature_shift(logits, label, table)


def own_labels(logits: Tensor, known: Tensor) -> Tensor:
    """Return a network's labels (N, h, w) uint8, IGNORE where `known` (N, H, W) is IGNORE."""
    stride = stride_of(logits, (known.shape[-2], known.shape[-1]))
    label = logits.detach().argmax(1).to(known.dtype)
    return label.masked_fill(at_centres(known, stride) == IGNORE, IGNORE)
