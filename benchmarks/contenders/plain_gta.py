"""GTA-Seg's step in plain PyTorch, as its released code writes it.

Logits and probabilities of all images at full resolution, the percentile of the confidences by
NumPy on the host, moving averages in loops over the parameters. Method: trainers/gta.py, defaults.
"""

import copy
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from ... import IGNORE
from ...kernels import cutmix_boxes, window_mask
from ...pipelines.batches import PairedBatch
from ...trainers.engine.steps.draws import drawn
from ...trainers.methods.settings.gta import BACKBONE, GtaSettings
from .plain_step import Phase, PlainSupervised, build_plain_optimizer, mix, upsampled


class PlainGta(PlainSupervised):
    """Assistant on pseudo-labels, student on labels, teacher by moving average."""

    def __init__(self, settings: GtaSettings, *options: Any, **more: Any) -> None:
        super().__init__(settings, *options, **more)
        self.settings = settings
        self.assistant = copy.deepcopy(self.network)
        self.teacher = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.assistant_optimizer = None
        if self.optimizer is not None:
            self.assistant_optimizer = build_plain_optimizer([self.assistant], settings.optimizer)
        self.steps = 0

    def networks(self) -> dict[str, nn.Module]:
        """Return all networks by the names they have in the recipe's method."""
        return {"student": self.network, "assistant": self.assistant, "teacher": self.teacher}

    def trained(self) -> list[nn.Module]:
        """Return student and assistant."""
        return [self.network, self.assistant]

    def optimizers(self) -> list[torch.optim.Optimizer | None]:
        """Return the student's and the assistant's optimizer."""
        return [self.optimizer, self.assistant_optimizer]

    def run(self, batches: dict[str, Any], phase: Phase = record_function) -> dict[str, Tensor]:
        """Make one training step and return its losses by the names of the recipe's stages."""
        labeled, count = batches["labeled"], len(batches["labeled"].image)
        decay = min(1 - 1 / (self.steps + 1), self.settings.ema_decay)
        with phase("assistant: forward"), self.autocast():
            mixed, label, confidence = self._pseudo_labels(batches["unlabeled"])
            images = torch.cat((labeled.image.contiguous(), mixed))
            logits = upsampled(self.assistant(images), images.shape[-2:])[count:]
            pseudo = self.settings.mu * self._reweighted(logits.float(), label, confidence)
        with phase("assistant: backward"):
            self.scaler.scale(pseudo).backward()
        self.update(self.assistant, self.assistant_optimizer, phase, "assistant: optimizer")
        with phase("assistant: after"), torch.no_grad():
            _average(_backbone(self.network), _backbone(self.assistant), decay)
        with phase("student: forward"), self.autocast():
            logits = upsampled(self.network(images), images.shape[-2:])[:count]
            supervised = F.cross_entropy(logits.float(), labeled.mask.long(), ignore_index=IGNORE)
        with phase("student: backward"):
            self.scaler.scale(supervised).backward()
        self.update(self.network, self.optimizer, phase, "student: optimizer")
        with phase("student: after"), torch.no_grad():
            _average(self.teacher.state_dict(), self.network.state_dict(), decay)
        self.scaler.update()
        self.steps += 1
        return {"assistant": pseudo.detach(), "student": supervised.detach()}

    @torch.no_grad()
    def _pseudo_labels(self, unlabeled: PairedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return mixed images (N, 3, H, W), the teacher's labels and confidences (N, H, W)."""
        image = unlabeled.weak.contiguous()
        size = (image.shape[-2], image.shape[-1])
        confidence, label = upsampled(self.teacher(image), size).float().softmax(1).max(1)
        label[~window_mask(unlabeled.window, size)] = IGNORE
        count, probability = len(image), self.settings.cutmix_probability
        boxes = drawn(
            lambda: cutmix_boxes(count, size, preset="gta", probability=probability), image.device
        )
        return mix(image, boxes), mix(label, boxes), mix(confidence, boxes)

    def _reweighted(self, logits: Tensor, label: Tensor, confidence: Tensor) -> Tensor:
        """Return the re-weighted cross-entropy of the most confident pixels (Eq. 6, 7)."""
        known = confidence[label != IGNORE].cpu().numpy()
        threshold = float(np.percentile(known, 100 * self.settings.drop))
        kept = (label != IGNORE) & (confidence > threshold)
        weight = (confidence + self.settings.smoothing) * kept
        losses = F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="none")
        return (weight * losses).sum() / weight.sum()


def is_plain_gta(settings: Any) -> bool:
    """Tell whether settings are of GTA-Seg as published, after its warm-up."""
    if not isinstance(settings, GtaSettings):
        return False
    published = GtaSettings()
    names = ("assistant_on", "student_on", "transfer", "reweighting", "normalizer", "confidence")
    same = all(getattr(settings, name) == getattr(published, name) for name in names)
    equal = settings.assistant_decay == settings.ema_decay
    return same and equal and settings.drop > 0 and settings.warmup_steps == 0


def _backbone(network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that the assistant passes on, by name."""
    cuts = cast(Any, network).transfer_layers()
    return {name: value for cut in BACKBONE for name, value in cuts[cut].items()}


def _average(old: dict[str, Tensor], new: dict[str, Tensor], decay: float) -> None:
    for name, value in old.items():
        value.copy_(decay * value + (1 - decay) * new[name])
