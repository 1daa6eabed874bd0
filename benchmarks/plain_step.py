"""The same training steps in plain PyTorch, as the papers' released code writes them.

NCHW tensors, float32 or AMP with a loss scaler, logits upsampled to the image before every loss,
the warp by `grid_sample`, a moving average in a loop over the parameters. Networks, optimizer
constants and batches are those of the recipe, and the losses are the same numbers: the benchmarks
check that before they time anything.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from .. import IGNORE
from ..kernels import TPS, tps_displacement
from ..pipelines.batches import LabeledBatch, PairedBatch
from ..trainers.consistency import ConsistencySettings
from ..trainers.optimization import OptimizerSettings
from ..trainers.settings import RunSettings
from ..trainers.supervised import SupervisedSettings

Phase = Callable[[str], AbstractContextManager[Any]]
Arithmetic = Literal["fp32", "amp"]


class PlainSupervised:
    """Cross-entropy on upsampled logits."""

    def __init__(
        self,
        settings: RunSettings,
        num_classes: int,
        device: torch.device,
        arithmetic: Arithmetic = "fp32",
        optimize: bool = True,
    ) -> None:
        self.device, self.arithmetic = device, arithmetic
        self.network: nn.Module = settings.network.build(num_classes).to(device)
        self.optimizer = _optimizer(self.network, settings.optimizer) if optimize else None
        # On a CPU, AMP is bfloat16, which needs no scaler.
        scaled = arithmetic == "amp" and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type if scaled else "cpu", enabled=scaled)

    def modules(self) -> list[nn.Module]:
        """Return all networks."""
        return [self.network]

    def load(self, network: nn.Module) -> None:
        """Take over a network's weights."""
        for own in self.modules():
            own.load_state_dict(network.state_dict())

    def run(self, batches: dict[str, Any], phase: Phase = record_function) -> dict[str, Tensor]:
        """Make one training step and return its losses by the names of the recipe's stages."""
        labeled: LabeledBatch = batches["labeled"]
        with phase("supervised: forward"), self._autocast():
            loss = self._supervised(labeled)
        with phase("supervised: backward"):
            self.scaler.scale(loss).backward()
        self._step(phase)
        return {"supervised": loss.detach()}

    def _supervised(self, labeled: LabeledBatch) -> Tensor:
        logits = _upsampled(self.network(labeled.image.contiguous()), labeled.mask.shape[-2:])
        return F.cross_entropy(logits.float(), labeled.mask.long(), ignore_index=IGNORE)

    def _step(self, phase: Phase) -> None:
        with phase("step: optimizer"):
            if self.optimizer is not None:
                self.scaler.step(self.optimizer)
                self.scaler.update()
            for parameter in self.network.parameters():
                parameter.grad = None

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.arithmetic == "fp32":
            return torch.autocast("cpu", enabled=False)
        half = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=half)


class PlainConsistency(PlainSupervised):
    """One-way consistency with a clean teacher on upsampled, warped distributions.

    staged: supervised backward first, as the paper's Algorithm 1; otherwise one backward pass of
    the sum of the losses, as most released code has it.
    """

    def __init__(
        self, settings: ConsistencySettings, *options: Any, staged: bool = True, **more: Any
    ) -> None:
        super().__init__(settings, *options, **more)
        self.settings, self.staged = settings, staged
        self.teacher = self.network
        if settings.mean_teacher:
            self.teacher = copy.deepcopy(self.network).requires_grad_(False)

    def modules(self) -> list[nn.Module]:
        """Return all networks."""
        return [self.network] + [self.teacher] * self.settings.mean_teacher

    def run(self, batches: dict[str, Any], phase: Phase = record_function) -> dict[str, Tensor]:
        """Make one training step and return its losses by the names of the recipe's stages."""
        with phase("supervised: forward"), self._autocast():
            supervised = self._supervised(batches["labeled"])
        if self.staged:
            with phase("supervised: backward"):
                self.scaler.scale(supervised).backward()
        with phase("consistency: forward"), self._autocast():
            consistency = self.settings.alpha * self._divergence(batches["unlabeled"])
        with phase("consistency: backward"):
            loss = consistency if self.staged else supervised + consistency
            self.scaler.scale(loss).backward()
        self._step(phase)
        if self.settings.mean_teacher:
            with phase("consistency: after"), torch.no_grad():
                self._update_teacher()
        return {"supervised": supervised.detach(), "consistency": consistency.detach()}

    def _divergence(self, views: PairedBatch) -> Tensor:
        size = views.strong.shape[-2:]
        with torch.no_grad():
            self.teacher.eval()
            target = _upsampled(self.teacher(views.weak.contiguous()), size).float().softmax(1)
            self.network.train()
            if views.tps is not None:
                target = F.grid_sample(target, _grid(views.tps, size), align_corners=True)
        logits = _upsampled(self.network(views.strong.contiguous()), size)
        log_prob = logits.float().log_softmax(1)
        divergence = F.kl_div(log_prob, target, reduction="none").sum(1)
        return (divergence * views.valid).sum() / views.valid.sum()

    def _update_teacher(self) -> None:
        decay = self.settings.ema_decay
        for old, new in zip(self.teacher.parameters(), self.network.parameters(), strict=True):
            old.mul_(decay).add_(new, alpha=1 - decay)
        for old, new in zip(self.teacher.buffers(), self.network.buffers(), strict=True):
            old.copy_(decay * old + (1 - decay) * new)


def plain_step(
    settings: RunSettings, *options: Any, staged: bool = True, **more: Any
) -> PlainSupervised | None:
    """Return the plain implementation of a recipe's step, or None where there is none here."""
    if not has_plain(settings):
        return None
    if isinstance(settings, ConsistencySettings):
        return PlainConsistency(settings, *options, staged=staged, **more)
    return PlainSupervised(settings, *options, **more)


def has_plain(settings: RunSettings) -> bool:
    """Tell whether a recipe has a plain implementation: supervised training, and of consistency the
    paper's own form: 1w-ct, pooled KL of warped probabilities."""
    if not isinstance(settings, ConsistencySettings):
        return isinstance(settings, SupervisedSettings)
    return (
        settings.variant == "1w-ct"
        and not settings.cutmix
        and settings.divergence == "kl"
        and settings.blend == "probabilities"
        and settings.kl_mean == "pooled"
        and settings.teacher_batch_norm == "running"
    )


def _upsampled(logits: Tensor, size: Any) -> Tensor:
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def _grid(tps: TPS, size: Any) -> Tensor:
    """Return where each pixel is sampled, (N, H, W, 2) in [-1, 1], x then y."""
    height, width = size
    device = tps.points.device
    y = torch.linspace(0, 1, height, device=device)[:, None].expand(height, width)
    x = torch.linspace(0, 1, width, device=device)[None].expand(height, width)
    return 2 * (torch.stack((x, y), dim=-1) + tps_displacement(tps, (height, width))) - 1


def _optimizer(network: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Return torch's optimizer with its defaults but the recipe's constants, as code mostly has."""
    parameters = network.parameters()
    shared: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.name == "sgd":
        return torch.optim.SGD(
            parameters, momentum=settings.momentum, nesterov=settings.nesterov, **shared
        )
    kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    return kind(parameters, betas=settings.betas, **shared)
