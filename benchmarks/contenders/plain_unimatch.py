"""The steps of FixMatch, UniMatch V1 and V2 in plain PyTorch, as their released codes write them.

Logits and probabilities of all images at full resolution, maps of labels, confidences and padding
mixed one by one, one backward pass of the sum of the losses, the moving average in a loop over the
tensors. Methods: trainers/methods/fixmatch.py, unimatch.py and unimatch_v2.py, defaults.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from ... import IGNORE
from ...kernels import CutMixBoxes, cutmix_boxes, window_mask
from ...models import SegmentationNetwork
from ...pipelines.batches import PairedBatch
from ...trainers.methods.settings.fixmatch import FixMatchSettings
from ...trainers.methods.settings.unimatch import UniMatchSettings
from ...trainers.methods.settings.unimatch_v2 import UniMatchV2Settings
from ...trainers.methods.settings.weak_to_strong import WeakToStrongSettings
from .plain_step import Phase, PlainSupervised, mix, upsampled

Maps = tuple[Tensor, Tensor, Tensor]
"""Label, confidence and whether the crop shows an image: (N, H, W) each."""


class PlainWeakToStrong(PlainSupervised):
    """What the three steps share: labels of weak views, mixing, the loss of a strong view."""

    network: SegmentationNetwork
    stage = "strong"

    def __init__(self, settings: WeakToStrongSettings, *options: Any, **more: Any) -> None:
        super().__init__(settings, *options, **more)
        self.settings: Any = settings
        self.teacher: nn.Module | None = None
        if getattr(settings, "labeler", "teacher") == "teacher":
            self.teacher = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.steps = 0

    def networks(self) -> dict[str, nn.Module]:
        """Return all networks by the names they have in the recipe's method."""
        teachers = {} if self.teacher is None else {"teacher": self.teacher}
        return {"student": self.network, **teachers}

    def run(self, batches: dict[str, Any], phase: Phase = record_function) -> dict[str, Tensor]:
        """Make one training step and return its losses by the names of the recipe's stages."""
        with phase(f"{self.stage}: forward"), self.autocast():
            losses = self.losses(batches["labeled"], batches["unlabeled"])
        with phase(f"{self.stage}: backward"):
            self.scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        self.update(self.network, self.optimizer, phase, f"{self.stage}: optimizer")
        self.scaler.update()
        if self.teacher is not None:
            with phase(f"{self.stage}: after"), torch.no_grad():
                kept = min(1 - 1 / (self.steps + 1), self.settings.ema_decay)
                pairs = zip(_tensors(self.teacher), _tensors(self.network), strict=True)
                for old, new in pairs:
                    old.copy_(old * kept + new * (1 - kept))
        self.steps += 1
        return {name: loss.detach() for name, loss in losses.items()}

    def losses(self, labeled: Any, views: PairedBatch) -> dict[str, Tensor]:
        """Return the losses, weighted, by the stages they have in the recipe's method."""
        raise NotImplementedError

    def labels(self, logits: Tensor, views: PairedBatch) -> Maps:
        """Return label, confidence and what is shown, by logits of the weak views."""
        size = (views.weak.shape[-2], views.weak.shape[-1])
        confidence, label = upsampled(logits.detach(), size).float().softmax(1).max(1)
        return label, confidence, window_mask(views.window, size)

    def mixed(self, image: Tensor, maps: Maps) -> tuple[Tensor, Maps]:
        """Mix one strong view, and what is taught of it, by boxes."""
        boxes: CutMixBoxes = cutmix_boxes(
            len(image),
            (image.shape[-2], image.shape[-1]),
            preset="unimatch",
            probability=self.settings.mix_probability,
        ).to(image.device)
        label, confidence, shown = (mix(map, boxes) for map in maps)
        return mix(image.contiguous(), boxes), (label, confidence, shown)

    def supervised(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the mean cross-entropy over labeled pixels."""
        full = upsampled(logits, mask.shape[-2:])
        return F.cross_entropy(full.float(), mask.long(), ignore_index=IGNORE)

    def taught(self, logits: Tensor, maps: Maps) -> Tensor:
        """Return the cross-entropy of sure pixels over the number of those that are shown."""
        label, confidence, shown = maps
        losses = F.cross_entropy(
            upsampled(logits, label.shape[-2:]).float(), label, reduction="none"
        )
        sure = (confidence >= self.settings.threshold) & shown
        return (losses * sure).sum() / shown.sum()


class PlainFixMatch(PlainWeakToStrong):
    """The form of UniMatch V2: labeled and strong images in one pass."""

    stage = "joint"

    def losses(self, labeled: Any, views: PairedBatch) -> dict[str, Tensor]:
        """Return the one loss."""
        assert self.teacher is not None
        with torch.no_grad():
            maps = self.labels(self.teacher(views.weak.contiguous()), views)
        image, maps = self.mixed(views.strong, maps)
        logits = self.network(torch.cat((labeled.image.contiguous(), image)))
        count = len(labeled.image)
        strong = self.taught(logits[count:], maps)
        return {"joint": (self.supervised(logits[:count], labeled.mask) + strong) / 2}


class PlainUniMatch(PlainWeakToStrong):
    """V1: dropped features beside the others, then both strong views."""

    def losses(self, labeled: Any, views: PairedBatch) -> dict[str, Tensor]:
        """Return the losses of both passes."""
        assert views.second is not None
        network, count = self.network, len(labeled.image)
        images = torch.cat((labeled.image.contiguous(), views.weak.contiguous()))
        features = tuple(
            torch.cat((level, nn.Dropout2d(self.settings.feature_dropout)(level)))
            for level in network.encode(images)
        )
        clean, dropped = network.classify(network.decode(features)).chunk(2)
        maps = self.labels(clean[count:], views)
        perturbed = self.taught(dropped[count:], maps)
        weak = (self.supervised(clean[:count], labeled.mask) + perturbed / 2) / 2
        pairs = [self.mixed(image, maps) for image in (views.strong, views.second.strong)]
        logits = network(torch.cat([image for image, _ in pairs])).chunk(2)
        strong = [self.taught(z, mixed) for z, (_, mixed) in zip(logits, pairs, strict=True)]
        return {"weak": weak, "strong": (strong[0] + strong[1]) / 8}


class PlainUniMatchV2(PlainWeakToStrong):
    """V2: complementary dropout of the features of both strong views."""

    def losses(self, labeled: Any, views: PairedBatch) -> dict[str, Tensor]:
        """Return the losses of both passes."""
        assert self.teacher is not None
        assert views.second is not None
        network = self.network
        with torch.no_grad():
            maps = self.labels(self.teacher(views.weak.contiguous()), views)
        supervised = self.supervised(network(labeled.image.contiguous()), labeled.mask)
        pairs = [self.mixed(image, maps) for image in (views.strong, views.second.strong)]
        features = network.encode(torch.cat([image for image, _ in pairs]))
        features = _complementary(features)
        logits = network.classify(network.decode(features)).chunk(2)
        strong = [self.taught(z, mixed) for z, (_, mixed) in zip(logits, pairs, strict=True)]
        return {"labeled": supervised / 2, "strong": (strong[0] + strong[1]) / 4}


def is_plain_weak_to_strong(settings: Any) -> bool:
    """Tell whether settings are of FixMatch or UniMatch as published, but for their numbers."""
    if isinstance(settings, FixMatchSettings):
        form = settings.labeler == "teacher"
    elif isinstance(settings, UniMatchSettings):
        form = settings.labeler == "student"
    else:
        form = isinstance(settings, UniMatchV2Settings) and settings.dropout == "complementary"
    return (
        form
        and settings.mixing == "boxes"
        and settings.labeled_loss == "mean"
        and settings.strong_batch_norm == "batch"
        and settings.network.freeze == "none"
    )


def plain_weak_to_strong(settings: Any, *options: Any, **more: Any) -> PlainWeakToStrong:
    """Return the plain step of settings that have one."""
    kinds: dict[type, type[PlainWeakToStrong]] = {
        FixMatchSettings: PlainFixMatch,
        UniMatchSettings: PlainUniMatch,
        UniMatchV2Settings: PlainUniMatchV2,
    }
    return kinds[type(settings)](settings, *options, **more)


def _complementary(features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Mask the channels of both views; levels of one width alike, as a ViT's."""
    batch = len(features[0]) // 2
    whole = torch.randperm(batch)[: batch // 2]
    masks: dict[int, Tensor] = {}
    for level in features:
        width = level.shape[1]
        if width in masks:
            continue
        first = 2.0 * torch.randint(2, (batch, width, 1, 1))
        first[whole] = 1
        masks[width] = torch.cat((first, 2 - first)).to(level.device)
    return tuple(level * masks[level.shape[1]] for level in features)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
