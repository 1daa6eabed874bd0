"""MKD's step in plain PyTorch, as its released code writes it.

Labels and probabilities by argmax over whole maps, boxes by `where`, feature augmentation and class
statistics over tensors of pixels x classes x channels (ISDA's code), moving averages in loops over
the parameters. Method: trainers/mkd.py, defaults.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from ... import IGNORE
from ...kernels import cutmix_boxes, window_mask
from ...pipelines.batches import LabeledBatch, PairedBatch
from ...trainers.engine.steps.draws import drawn
from ...trainers.methods.settings.mkd import MkdSettings
from .plain_step import Phase, PlainSupervised, build_plain_optimizer, mix, upsampled

View = tuple[Tensor, Tensor]


class PlainMkd(PlainSupervised):
    """Two students, each taught by the other and by the other's moving average."""

    def __init__(self, settings: MkdSettings, num_classes: int, *options: Any, **more: Any) -> None:
        super().__init__(settings, num_classes, *options, **more)
        self.settings, self.num_classes = settings, num_classes
        self.students = nn.ModuleList([self.network, copy.deepcopy(self.network)])
        self.teachers = copy.deepcopy(self.students).requires_grad_(False)
        if self.optimizer is not None:
            self.optimizer = build_plain_optimizer(self.students, settings.optimizer)
        width = cast(Any, self.network).classifier.in_channels
        self.statistics = [_Statistics(num_classes, width, self.device) for _ in range(2)]
        self.steps = 0

    def networks(self) -> dict[str, nn.Module]:
        """Return all networks."""
        pairs = (("student", self.students), ("teacher", self.teachers))
        return {f"{p}{n}": net for p, both in pairs for n, net in enumerate(both, start=1)}

    def trained(self) -> list[nn.Module]:
        """Return both students."""
        return list(self.students)

    def run(self, batches: Mapping[str, Any], phase: Phase = record_function) -> dict[str, Tensor]:
        """Make one training step and return its losses by the names of the recipe's stages."""
        with phase("supervised: forward"), self.autocast():
            supervised = self._learn_labels(batches["labeled"])
        with phase("supervised: backward"):
            self.scaler.scale(supervised).backward()
        with phase("mutual: forward"), self.autocast():
            mutual = self._teach(batches["unlabeled"])
        with phase("mutual: backward"):
            self.scaler.scale(mutual).backward()
        self.update(self.students, self.optimizer, phase, "mutual: optimizer")
        self.scaler.update()
        with phase("mutual: after"), torch.no_grad():
            kept = min(1 - 1 / (self.steps + 2), self.settings.gamma)
            pairs = zip(self.teachers.parameters(), self.students.parameters(), strict=True)
            for old, new in pairs:
                old.mul_(kept).add_(new, alpha=1 - kept)
        self.steps += 1
        return {"supervised": supervised.detach(), "mutual": mutual.detach()}

    def _learn_labels(self, labeled: LabeledBatch) -> Tensor:
        image, mask = labeled.image.contiguous(), labeled.mask.long()
        losses = []
        for student, statistics in zip(self.students, self.statistics, strict=True):
            logits, feature = student(image, return_feature=True)
            statistics.update(feature.detach(), _nearest(mask, feature))
            full = upsampled(logits, mask.shape[-2:])
            losses.append(F.cross_entropy(full.float(), mask, ignore_index=IGNORE))
        return losses[0] + losses[1]

    def _teach(self, views: PairedBatch) -> Tensor:
        """Return alpha L_st + beta L_ss on mixed strong views."""
        strong = views.strong.contiguous()
        size = (strong.shape[-2], strong.shape[-1])
        known = torch.where(window_mask(views.window, size), 0, IGNORE)
        with torch.no_grad():
            guides = [teacher(views.weak.contiguous()) for teacher in self.teachers]
        count = len(strong)
        boxes = drawn(lambda: cutmix_boxes(count, size, preset="mkd"), strong.device)
        strong, known = mix(strong, boxes), mix(known, boxes)
        said, labels = [], []
        for student, statistics in zip(self.students, self.statistics, strict=True):
            view = student(strong, return_feature=True)
            logits = self._coarse(self._augmented(student, view, statistics, known), size)
            said.append(logits)
            labels.append(_own_label(logits, known))
        taught = [_own_label(self._coarse(mix(guide, boxes), size), known) for guide in guides]
        by_teacher = _crossed(said, taught)
        return self.settings.alpha * by_teacher + self.settings.beta * _crossed(said, labels)

    def _augmented(
        self, student: nn.Module, view: View, statistics: "_Statistics", known: Tensor
    ) -> Tensor:
        """Shift the logits of each pixel by the variance of its class (ISDA)."""
        logits, feature = view
        label = _own_label(logits, known)
        statistics.update(feature.detach(), label)
        grown = (1 - math.cos(math.pi * self.steps / self.settings.num_steps)) / 2
        weight = cast(Any, student).classifier.weight.detach().flatten(1)
        index = torch.where(label == IGNORE, 0, label).flatten()
        apart = (weight[None] - weight[index][:, None]).square()
        shift = (apart * statistics.variance[index][:, None]).sum(2)
        shift = shift.masked_fill((label == IGNORE).flatten()[:, None], 0)
        batch, classes, height, width = logits.shape
        shift = shift.view(batch, height, width, classes).permute(0, 3, 1, 2)
        return logits + 0.5 * self.settings.feature_strength * grown * shift

    def _coarse(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        coarse = [-(-extent // self.settings.loss_stride) for extent in size]
        if coarse[0] >= logits.shape[-2]:
            return logits
        return F.interpolate(logits, coarse, mode="bilinear", align_corners=False)


class _Statistics:
    """Mean and variance of the features of each class so far."""

    def __init__(self, num_classes: int, width: int, device: torch.device) -> None:
        self.mean = torch.zeros(num_classes, width, device=device)
        self.variance = torch.zeros(num_classes, width, device=device)
        self.count = torch.zeros(num_classes, device=device)

    @torch.no_grad()
    def update(self, feature: Tensor, label: Tensor) -> None:
        """Add features (N, A, h, w) of classes (N, h, w), by pixels x classes x channels."""
        flat = feature.float().permute(0, 2, 3, 1).flatten(0, 2)
        # IGNORE is no class, so that its pixels count for none.
        classes = torch.arange(len(self.count), device=label.device)
        chosen = (label.flatten()[:, None] == classes).float()
        spread = flat[:, None] * chosen[:, :, None]
        amount = chosen.sum(0)
        mean = spread.sum(0) / amount.clamp(min=1)[:, None]
        variance = ((spread - mean) * chosen[:, :, None]).square().sum(0)
        variance = variance / amount.clamp(min=1)[:, None]
        share = (amount / (amount + self.count).clamp(min=1))[:, None]
        between = share * (1 - share) * (self.mean - mean).square()
        self.variance = (1 - share) * self.variance + share * variance + between
        self.mean = (1 - share) * self.mean + share * mean
        self.count = self.count + amount


def is_plain_mkd(settings: Any) -> bool:
    """Tell whether settings are of MKD as published."""
    if not isinstance(settings, MkdSettings):
        return False
    published = MkdSettings()
    names = ("teachers", "cutmix", "feature_on", "feature_ramp", "consistency_on", "threshold")
    names += ("teacher_batch_norm", "student_batch_norm", "count_padding", "rampup_steps")
    same = all(getattr(settings, name) == getattr(published, name) for name in names)
    return same and settings.feature_strength > 0


def _crossed(logits: list[Tensor], labels: list[Tensor]) -> Tensor:
    """Return the cross-entropy of each of two with the other's labels."""
    pairs = zip(logits, labels[::-1], strict=True)
    losses = [F.cross_entropy(z.float(), label, ignore_index=IGNORE) for z, label in pairs]
    return losses[0] + losses[1]


def _own_label(logits: Tensor, known: Tensor) -> Tensor:
    """Return labels (N, h, w) int64, IGNORE where nothing is known."""
    label = logits.detach().argmax(1)
    return label.masked_fill(_nearest(known, logits) == IGNORE, IGNORE)


def _nearest(mask: Tensor, map: Tensor) -> Tensor:
    """Return a mask (N, H, W) at a map's resolution."""
    resized = F.interpolate(mask[:, None].float(), map.shape[-2:], mode="nearest-exact")
    return resized[:, 0].long()
