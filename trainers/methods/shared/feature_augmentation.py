"""Feature augmentation of MKD (section 3.2): ISDA with a diagonal covariance of each class.

Moving a pixel's feature along all meaningful directions of its class y, in the limit, adds to the
logit of class k the entry S[y, k] = lambda / 2 sum_a Var[y, a] (w[k, a] - w[y, a])^2 of a C x C
table, with w the 1 x 1 classifier's weight.

S grows with the square of the distance of two classes' weights, logits only with the distance
itself: how strong a lambda is depends on how the classifier starts. The paper's 1.5 is made for
classifiers of standard deviation .01, as DeepLabv3+ has here, and shifts by hundredths of a logit.
SwiftNet's starts at sqrt(2 / C), .5 for 7 classes: on 8 drawn masks, from scratch, its median entry
is 7 logits after 20 steps of 40, where the best class leads the second by 2.5, and 22 against 6 at
the end. Three labels in four are then the shift's, not the network's. What the shift does is
therefore logged, `feature_shift` beside `margin` and `flipped`, and a run warns where it exceeds
the margin.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .... import IGNORE
from ....kernels import ClassStatistics, at_centres, feature_shift, stride_of

Ramp = Literal["half_cosine", "linear"]


class Effect(NamedTuple):
    """What a shift does to some pixels, each a 0-d tensor."""

    feature_shift: Tensor
    """median entry of the table, over pairs of different classes, the first of them seen before"""
    margin: Tensor
    """median lead of the best logit over the second before the shift, over the counted pixels"""
    flipped: Tensor
    """share of them whose likeliest class is another one after the shift"""


class FeatureAugmentation(nn.Module):
    """The running class statistics of one network's features, and the shift they make."""

    def __init__(
        self,
        num_classes: int,
        width: int,
        strength: float,
        ramp: Ramp,
        total: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.statistics = ClassStatistics(num_classes, width, total)
        self.strength, self.ramp = strength, ramp

    def forward(
        self,
        logits: Tensor,
        feature: Tensor,
        label: Tensor,
        weight: Tensor,
        strength: float | Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Add the features (N, A, h, w) to the statistics; return the shifted logits and the table.

        label: ids (N, H, W) or (N, h, w), IGNORE where a pixel is neither counted nor shifted.
        weight: the classifier's. strength: that of the step, as `strength_at` returns it.
        """
        self.statistics.update(feature.detach(), label)
        table = self.statistics.table(weight, strength)
        return feature_shift(logits, label, table), table

    def strength_at(self, progress: float) -> float:
        """Return lambda where a part of the run is done, from 0 to 1."""
        grown = (1 - math.cos(math.pi * progress)) / 2 if self.ramp == "half_cosine" else progress
        return self.strength * grown

    @torch.no_grad()
    def effect(self, before: Tensor, after: Tensor, counted: Tensor, table: Tensor) -> Effect:
        """Return what a shift by the table did to logits (N, C, h, w), where counted (N, h, w)."""
        best = before.float().topk(2, dim=1).values
        other = self.statistics.count[:, None].gt(0) & ~torch.eye(
            len(table), dtype=torch.bool, device=table.device
        )
        flips = counted & (before.argmax(1) != after.argmax(1))
        return Effect(
            feature_shift=masked_median(table, other),
            margin=masked_median(best[:, 0] - best[:, 1], counted),
            flipped=flips.sum() / counted.sum().clamp(min=1),
        )


def masked_median(values: Tensor, counted: Tensor) -> Tensor:
    """Return the (lower) median of the counted values, 0-d, 0 where none counts; no host sync."""
    ordered = values.masked_fill(~counted, math.inf).flatten().sort().values
    middle = (counted.sum() - 1).clamp(min=0) // 2
    return torch.where(counted.any(), ordered.gather(0, middle[None])[0], 0)


def shift_concern(means: Mapping[str, float], stage: str) -> dict[str, str]:
    """Warn where the median shift exceeds the median margin, by the logged terms of a stage."""
    shift, margin, flipped = (means.get(f"{stage}/{name}", 0.0) for name in Effect._fields)
    if shift <= margin:
        return {}
    return {
        "feature_shift": f"feature augmentation shifts logits by {shift:.3g} in the median, where "
        f"the best class leads by {margin:.3g}, and changes {flipped:.0%} of the labels: lower "
        "--feature-strength, or switch it off by 0"
    }


def own_labels(logits: Tensor, known: Tensor) -> Tensor:
    """Return a network's labels (N, h, w) uint8, IGNORE where `known` (N, H, W) is IGNORE."""
    stride = stride_of(logits, (known.shape[-2], known.shape[-1]))
    label = logits.detach().argmax(1).to(known.dtype)
    return label.masked_fill(at_centres(known, stride) == IGNORE, IGNORE)
