"""Feature-space augmentation of MKD as a C x C table, and the class statistics that it is made of.

MKD section 3.2 (implicit semantic data augmentation with a diagonal covariance): in place of
sampling features around each pixel's, the classifier's logits get the upper bound of the expected
loss,

    logit_k += S[y, k],   S[y, k] = strength / 2 * sum_a Var[y, a] (w[k, a] - w[y, a])^2

for a pixel of class y with classifier weights w (C, A) and per-class feature variances Var (C, A).
The shift depends on y alone, so that the released code's N x C x A tensor is a table of C x C and a
gather from it. Ignored pixels are not shifted. Var and w give no gradient.

Var is streamed: each batch's moments (n, mean, var) join the memory (N, Mean, Var) with
w = n / (n + N) as Var <- (1 - w) Var + w var + w (1 - w) (Mean - mean)^2 and
Mean <- (1 - w) Mean + w mean, which equals the moments of all pixels seen so far.

Moved per stride-s pixel: the shift reads and writes the logits and one label (4 C + 1 bytes in
bfloat16); the moments read the features once (2 A bytes in bfloat16).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ... import IGNORE
from ..dispatch import use_op
from .class_moments import check_map, class_index, class_moments
from .feature_shift_triton import feature_shift_op

__all__ = [
    "ClassStatistics",
    "feature_shift",
    "feature_shift_reference",
    "shift_table",
]


class ClassStatistics(nn.Module):
    """Running mean and variance of the features of each class, kept in buffers.

    mean, variance: (C, A) float32, zero for a class not seen yet; count: (C,) int64 pixels.
    total: sums a float64 tensor over all ranks; with it each update adds the pixels of all of them,
    so that all ranks hold the statistics of the joined batches. (The released code's ranks keep
    their own.)
    """

    same_on_ranks = True
    """Averaging the buffers over ranks would weigh a rank that did not see a class like one that
    did: whoever averages buffers must leave these alone."""

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        total: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.total_over_ranks = total
        self.register_buffer("mean", torch.zeros(num_classes, num_features))
        self.register_buffer("variance", torch.zeros(num_classes, num_features))
        self.register_buffer("count", torch.zeros(num_classes, dtype=torch.int64))
        self.mean: Tensor
        self.variance: Tensor
        self.count: Tensor

    @torch.no_grad()
    def update(self, feature: Tensor, label: Tensor) -> None:
        """Add a batch: feature (N, A, h, w), label as for `class_moments`."""
        new, mean, squares = class_moments(feature, label, self.count.shape[0])
        if self.total_over_ranks is not None:
            new, mean, squares = pooled_moments(new, mean, squares, self.total_over_ranks)
        total = self.count + new
        share = (new.double() / total.clamp(min=1)).to(self.mean.dtype)[:, None]
        variance = squares / new.clamp(min=1)[:, None]
        spread = share * (1 - share) * (self.mean - mean).square()
        self.variance.copy_((1 - share) * self.variance + share * variance + spread)
        self.mean.lerp_(mean, share)
        self.count.copy_(total)

    def table(self, weight: Tensor, strength: float | Tensor) -> Tensor:
        """Return `shift_table` of these variances."""
        return shift_table(self.variance, weight, strength)


def pooled_moments(
    count: Tensor, mean: Tensor, squares: Tensor, total: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Join the moments of `class_moments` of all ranks, exactly but for rounding, in one exchange.

    total: sums a float64 tensor over the ranks. Sums of squares stay in float64 until their mean is
    taken off, so that features far from zero lose nothing.
    """
    n, centre = count.double()[:, None], mean.double()
    joined = total(torch.cat([n, n * centre, squares.double() + n * centre.square()], 1))
    n, sums, powers = joined.split((1, mean.shape[1], mean.shape[1]), 1)
    centre = sums / n.clamp(min=1)
    spread = (powers - n * centre.square()).clamp(min=0)
    return n[:, 0].round().long(), centre.to(mean.dtype), spread.to(squares.dtype)


@torch.no_grad()
def shift_table(variance: Tensor, weight: Tensor, strength: float | Tensor) -> Tensor:
    """Return S (C, C) of the variance's dtype with rows y, columns k; no gradient.

    variance: (C, A), float32 or float64. weight: (C, A) or (C, A, 1, 1), the 1 x 1 classifier's.
    strength: lambda of the schedule, a number or a 0-d tensor.
    """
    weight = weight.detach().flatten(1).to(variance.dtype)
    if weight.shape != variance.shape:
        raise ValueError(
            f"weight must be (C, A) = {tuple(variance.shape)} like the class statistics; "
            f"got {tuple(weight.shape)}"
        )
    # An outer difference, not the expanded square: that would cancel where S is small.
    apart = (weight[None] - weight[:, None]).square()
    return (apart * variance[:, None]).sum(2) * (0.5 * strength)


def feature_shift_reference(
    logits: Tensor, label: Tensor, table: Tensor, ignore: int = IGNORE
) -> Tensor:
    """Do what `feature_shift` does in plain PyTorch: the definition, on any device."""
    index = class_index(logits, label, table.shape[0], ignore)
    rows = torch.cat([table.detach(), table.new_zeros(1, table.shape[1])])
    shift = rows[index].movedim(-1, 1)
    return (logits.to(torch.promote_types(logits.dtype, torch.float32)) + shift).to(logits.dtype)


def feature_shift(logits: Tensor, label: Tensor, table: Tensor, ignore: int = IGNORE) -> Tensor:
    """Add to each pixel's logits the table's row of its label (MKD section 3.2).

    logits: (N, C, h, w), any dtype, result the same. label: (N, h, w), or (N, H, W) at a stride the
    logits fit, then the label at each cell's centre counts; integers, `ignore` and ids of no class
    are not shifted. table: (C, C) float32 of `shift_table`. The gradient passes to the logits.

    Raises ValueError for shapes and dtypes that do not fit.
    """
    check_map(logits, label)
    classes = logits.shape[1]
    if table.shape != (classes, classes):
        raise ValueError(f"table must be ({classes}, {classes}); got {tuple(table.shape)}")
    table = table.detach()
    if not use_op(logits, label, table):
        return feature_shift_reference(logits, label, table, ignore)
    return feature_shift_op(logits, label, table.float(), ignore)
