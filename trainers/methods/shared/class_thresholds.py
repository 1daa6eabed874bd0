"""Class-wise thresholds: a label teaches where it is sure for one of its class.

    m_c    <- running mean of the confidence of pixels labeled c, over all ranks
    r_c    =  (m_c / max_k m_k)^power
    taught where conf >= tau r_c, which is conf / r_c >= tau

A network is less sure of a class of few pixels, so that one threshold for all leaves it without
labels (as FreeMatch and FlexMatch observe of whole images). Held against a threshold is the
relative confidence conf / r_c: any rule that cuts confidences, a fixed one or a quantile, becomes
class-wise so.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...engine.runtime import Runtime
from ...engine.settings import RunSettings

MOMENTUM = 0.99
"""Part of the old mean that a step keeps."""
_UNIT = 2**20
"""Confidences are added up as integers, whose sum has one value in any order."""


class ClassThresholds(nn.Module):
    """Running means of the confidence of each class's labels."""

    same_on_ranks = True

    def __init__(
        self, num_classes: int, power: float, total: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.power, self._total = power, total
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(num_classes))

    @torch.no_grad()
    def update(self, label: Tensor, confidence: Tensor, counted: Tensor) -> None:
        """Add the labels of a step: label integer, confidence in [0, 1] and counted bool, alike in
        shape; where counted, a label is a class."""
        labels = torch.where(counted, label, 0).flatten().long()
        amount = torch.stack((counted.float(), confidence.float() * counted)).flatten(1)
        sums = torch.zeros(2, len(self.mean), dtype=torch.int64, device=label.device)
        sums.index_add_(1, labels, (amount * _UNIT).round().long())
        if self._total is not None:
            sums = self._total(sums)
        count, confident = sums.double()
        new = (confident / count.clamp(min=1)).to(self.mean.dtype)
        moved = torch.where(self.mean > 0, torch.lerp(new, self.mean, MOMENTUM), new)
        self.mean.copy_(torch.where(count > 0, moved, self.mean))

    @property
    def ratio(self) -> Tensor:
        """r of each class, (C,) in (0, 1]; 1 of a class that was never a label."""
        relative = self.mean / self.mean.max().clamp(min=1e-6)
        return torch.where(self.mean > 0, relative, 1) ** self.power

    @torch.no_grad()
    def relative(self, label: Tensor, confidence: Tensor) -> Tensor:
        """Return conf / r_c of pixels, in the confidence's dtype; a label that is no class has r
        1."""
        ratio = torch.cat((self.ratio, self.ratio.new_ones(1)))
        index = label.long().clamp(max=len(self.mean))
        return confidence / ratio.to(confidence.dtype)[index]


def class_thresholds(
    settings: RunSettings, runtime: Runtime, num_classes: int, networks: dict[str, nn.Module]
) -> ClassThresholds | None:
    """Return class-wise thresholds, and put them among the networks, so that they are saved; None
    where the settings want one threshold for all."""
    power = settings.rare.thresholds
    if not power:
        return None
    total = runtime.total if runtime.world_size > 1 else None
    made = ClassThresholds(num_classes, power, total).to(runtime.device)
    networks["thresholds"] = made
    return made
