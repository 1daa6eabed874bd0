"""The steps of FixMatch, UniMatch V1 and V2 and PrevMatch in plain PyTorch, as released codes have
them.

Logits and probabilities of all images at full resolution, maps of labels, confidences and padding
mixed one by one, one backward pass of the sum of the losses, the moving average in a loop over the
tensors, snapshots in a list. Methods: trainers/methods/fixmatch.py, unimatch.py, unimatch_v2.py and
prevmatch.py, defaults.
"""

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from ... import IGNORE
from ...kernels import CutMixBoxes, cutmix_boxes, window_mask
from ...models import SegmentationNetwork
from ...pipelines.batches import PairedBatch
from ...trainers.engine.steps.draws import drawn
from ...trainers.methods.settings.fixmatch import FixMatchSettings
from ...trainers.methods.settings.prevmatch import PrevMatchSettings
from ...trainers.methods.settings.unimatch import UniMatchSettings
from ...trainers.methods.settings.unimatch_v2 import UniMatchV2Settings
from ...trainers.methods.settings.weak_to_strong import WeakToStrongSettings
from .plain_step import Phase, PlainSupervised, mix, upsampled

Maps = tuple[Tensor, Tensor, Tensor]
"""Label, confidence and whether the crop shows an image: (N, H, W) each."""
Target = tuple[float, float, Maps]
"""The weight of a loss, the least confidence of a label that teaches, and what is taught."""


class PlainWeakToStrong(PlainSupervised):
    """What the three steps share: labels of weak views, mixing, the loss of a strong view."""

    network: SegmentationNetwork
    stage, labeler = "strong", "teacher"

    def __init__(self, settings: WeakToStrongSettings, *options: Any, **more: Any) -> None:
        super().__init__(settings, *options, **more)
        self.settings: Any = settings
        self.teacher: nn.Module | None = None
        if getattr(settings, "labeler", self.labeler) == "teacher":
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
        with phase(f"{self.stage}: after"), torch.no_grad():
            self.after()
        self.steps += 1
        return {name: loss.detach() for name, loss in losses.items()}

    def after(self) -> None:
        """Move the teacher, where there is one."""
        if self.teacher is not None:
            kept = min(1 - 1 / (self.steps + 1), self.settings.ema_decay)
            for old, new in zip(_tensors(self.teacher), _tensors(self.network), strict=True):
                old.copy_(old * kept + new * (1 - kept))

    def losses(self, labeled: Any, views: PairedBatch) -> dict[str, Tensor]:
        """Return the losses, weighted, by the stages they have in the recipe's method."""
        raise NotImplementedError

    def labels(self, logits: Tensor, views: PairedBatch) -> Maps:
        """Return label, confidence and what is shown, by logits of the weak views."""
        size = (views.weak.shape[-2], views.weak.shape[-1])
        confidence, label = upsampled(logits.detach(), size).float().softmax(1).max(1)
        return label, confidence, window_mask(views.window, size)

    def mixed(self, image: Tensor, targets: list[Target]) -> tuple[Tensor, list[Target]]:
        """Mix one strong view, and what is taught of it, by boxes."""
        count, size = len(image), (image.shape[-2], image.shape[-1])
        probability = self.settings.mix_probability
        boxes: CutMixBoxes = drawn(
            lambda: cutmix_boxes(count, size, preset="unimatch", probability=probability),
            image.device,
        )
        found: list[Target] = []
        for weight, threshold, maps in targets:
            label, confidence, shown = (mix(map, boxes) for map in maps)
            found.append((weight, threshold, (label, confidence, shown)))
        return mix(image.contiguous(), boxes), found

    def supervised(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the mean cross-entropy over labeled pixels."""
        full = upsampled(logits, mask.shape[-2:])
        return F.cross_entropy(full.float(), mask.long(), ignore_index=IGNORE)

    def taught(self, logits: Tensor, targets: list[Target]) -> Tensor:
        """Return the cross-entropy of sure pixels over the number of those that are shown, by each
        target, weighted, times alpha."""
        total = logits.new_zeros(())
        for weight, threshold, (label, confidence, shown) in targets:
            losses = F.cross_entropy(
                upsampled(logits, label.shape[-2:]).float(), label, reduction="none"
            )
            sure = (confidence >= threshold) & shown
            total = total + weight * self.settings.alpha * (losses * sure).sum() / shown.sum()
        return total

    def targets(self, weak: Tensor, views: PairedBatch) -> list[Target]:
        """Return what is taught, by logits of the weak views."""
        return [(1.0, self.settings.threshold, self.labels(weak, views))]


class PlainFixMatch(PlainWeakToStrong):
    """The form of UniMatch V2: labeled and strong images in one pass."""

    stage = "joint"

    def losses(self, labeled: Any, views: PairedBatch) -> dict[str, Tensor]:
        """Return the one loss."""
        assert self.teacher is not None
        with torch.no_grad():
            targets = self.targets(self.teacher(views.weak.contiguous()), views)
        image, targets = self.mixed(views.strong, targets)
        logits = self.network(torch.cat((labeled.image.contiguous(), image)))
        count = len(labeled.image)
        strong = self.taught(logits[count:], targets)
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
        targets = self.targets(clean[count:], views)
        share = 1 + sum(weight for weight, _, _ in targets)
        perturbed = self.taught(dropped[count:], targets)
        weak = (self.supervised(clean[:count], labeled.mask) + perturbed / 2) / share
        pairs = [self.mixed(image, targets) for image in (views.strong, views.second.strong)]
        logits = network(torch.cat([image for image, _ in pairs])).chunk(2)
        strong = [self.taught(z, mixed) for z, (_, mixed) in zip(logits, pairs, strict=True)]
        return {"weak": weak, "strong": (strong[0] + strong[1]) / 4 / share}


class PlainPrevMatch(PlainUniMatch):
    """V1, taught also by some of the copies that are kept of the network, once there are any."""

    labeler = "student"

    def __init__(self, settings: PrevMatchSettings, *options: Any, **more: Any) -> None:
        super().__init__(settings, *options, **more)
        self.snapshots: list[SegmentationNetwork] = []

    def networks(self) -> dict[str, nn.Module]:
        """Return all networks by the names they have in the recipe's method."""
        kept = {f"snapshot{n}": network for n, network in enumerate(self.snapshots, start=1)}
        return {"student": self.network, **kept}

    def targets(self, weak: Tensor, views: PairedBatch) -> list[Target]:
        """Return the labels of the student and, from the first snapshot on, those of snapshots."""
        found, settings = super().targets(weak, views), self.settings
        epoch, epochs = (
            self.steps // settings.epoch_steps,
            settings.num_steps / settings.epoch_steps,
        )
        trust = 1 - abs(1 - 2 * epoch / epochs)
        if self.snapshots and trust > 0:
            with torch.no_grad():
                said = self.labels(self._asked(views.weak.contiguous()), views)
            found.append((trust, settings.previous_threshold, said))
        return found

    def _asked(self, image: Tensor) -> Tensor:
        """Return the weighted sum of some snapshots' logits, drawn as our step draws them."""
        draw = np.random.default_rng((self.settings.seed, self.steps, 0))
        count = draw.integers(1, self.settings.max_asked, endpoint=True)
        chosen = draw.permutation(len(self.snapshots))[:count]
        shares = draw.dirichlet(np.ones(len(chosen)))
        logits = [self.snapshots[number](image) for number in chosen]
        return torch.stack([float(w) * z for w, z in zip(shares, logits, strict=True)]).sum(0)

    def after(self) -> None:
        """Keep a copy at the end of every n-th epoch, in the place of the oldest."""
        every = self.settings.epoch_steps * self.settings.snapshot_epochs
        number, rest = divmod(self.steps + 1, every)
        if rest:
            return
        copied = copy.deepcopy(self.network).requires_grad_(False).eval()
        if len(self.snapshots) < self.settings.max_snapshots:
            self.snapshots.append(copied)
        else:
            self.snapshots[(number - 1) % len(self.snapshots)] = copied


class PlainUniMatchV2(PlainWeakToStrong):
    """V2: complementary dropout of the features of both strong views."""

    def losses(self, labeled: Any, views: PairedBatch) -> dict[str, Tensor]:
        """Return the losses of both passes."""
        assert self.teacher is not None
        assert views.second is not None
        network = self.network
        with torch.no_grad():
            targets = self.targets(self.teacher(views.weak.contiguous()), views)
        supervised = self.supervised(network(labeled.image.contiguous()), labeled.mask)
        pairs = [self.mixed(image, targets) for image in (views.strong, views.second.strong)]
        features = network.encode(torch.cat([image for image, _ in pairs]))
        features = _complementary(features)
        logits = network.classify(network.decode(features)).chunk(2)
        strong = [self.taught(z, mixed) for z, (_, mixed) in zip(logits, pairs, strict=True)]
        return {"labeled": supervised / 2, "strong": (strong[0] + strong[1]) / 4}


def is_plain_weak_to_strong(settings: Any) -> bool:
    """Tell whether settings are of FixMatch, UniMatch or PrevMatch as published, but for their
    numbers."""
    if isinstance(settings, FixMatchSettings):
        form = settings.labeler == "teacher"
    elif isinstance(settings, UniMatchSettings):
        form = settings.labeler == "student"
    elif isinstance(settings, UniMatchV2Settings):
        form = settings.dropout == "complementary"
    else:
        form = isinstance(settings, PrevMatchSettings)
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
        PrevMatchSettings: PlainPrevMatch,
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
