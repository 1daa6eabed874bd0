"""The same training steps in plain PyTorch, as the papers' released code writes them.

NCHW tensors and weights, float32 images, float32 or AMP with a loss scaler, logits upsampled to the
image before every loss, the warp by `grid_sample`, a moving average in a loop over the parameters.
Networks, optimizer constants and batches are those of the recipe, and the losses are the same
numbers: the benchmarks check that before they time anything.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from ... import IGNORE
from ...kernels import TPS, CutMixBoxes, stride_of, tps_displacement
from ...pipelines.batches import LabeledBatch, PairedBatch
from ...trainers.engine.optimization import OptimizerSettings
from ...trainers.engine.runtime import unwrap
from ...trainers.engine.settings import RunSettings
from ...trainers.methods.settings.consistency import ConsistencySettings
from ..words.given import Arithmetic

Phase = Callable[[str], AbstractContextManager[Any]]
"""amp is float16 with a loss scaler on a GPU and bfloat16 on a CPU, which needs none."""


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
        self.network = planar(settings.network.build(num_classes)).to(device)
        self.optimizer = (
            build_plain_optimizer([self.network], settings.optimizer) if optimize else None
        )
        scaled = arithmetic == "amp" and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type if scaled else "cpu", enabled=scaled)

    def networks(self) -> dict[str, nn.Module]:
        """Return all networks by the names they have in the recipe's method."""
        return {"student": self.network}

    def optimizers(self) -> list[torch.optim.Optimizer | None]:
        """Return all optimizers; None where only memory is modeled."""
        return [self.optimizer]

    def trained(self) -> list[nn.Module]:
        """Return the networks that have an optimizer."""
        return [self.network]

    def load(self, networks: Mapping[str, nn.Module]) -> None:
        """Take over the weights of a method's networks."""
        for name, own in self.networks().items():
            own.load_state_dict(unwrap(networks[name]).state_dict())

    def run(self, batches: dict[str, Any], phase: Phase = record_function) -> dict[str, Tensor]:
        """Make one training step and return its losses by the names of the recipe's stages."""
        labeled: LabeledBatch = batches["labeled"]
        with phase("supervised: forward"), self.autocast():
            loss = self._supervised(labeled)
        with phase("supervised: backward"):
            self.scaler.scale(loss).backward()
        self.update(self.network, self.optimizer, phase, "supervised: optimizer")
        self.scaler.update()
        return {"supervised": loss.detach()}

    def _supervised(self, labeled: LabeledBatch) -> Tensor:
        logits = upsampled(self.network(labeled.image.contiguous()), labeled.mask.shape[-2:])
        return F.cross_entropy(logits.float(), labeled.mask.long(), ignore_index=IGNORE)

    def update(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        phase: Phase,
        name: str,
    ) -> None:
        """Step the optimizer of a network, where there is one, and drop the gradients."""
        with phase(name):
            if optimizer is not None:
                self.scaler.step(optimizer)
            for parameter in network.parameters():
                parameter.grad = None

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        if self.arithmetic == "fp32":
            return torch.autocast("cpu", enabled=False)
        scaled = self.arithmetic == "amp" and self.device.type == "cuda"
        half = torch.float16 if scaled else torch.bfloat16
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

    def networks(self) -> dict[str, nn.Module]:
        """Return all networks by the names they have in the recipe's method."""
        teachers = {"teacher": self.teacher} if self.settings.mean_teacher else {}
        return {"student": self.network, **teachers}

    def run(self, batches: dict[str, Any], phase: Phase = record_function) -> dict[str, Tensor]:
        """Make one training step and return its losses by the names of the recipe's stages."""
        with phase("supervised: forward"), self.autocast():
            supervised = self._supervised(batches["labeled"])
        if self.staged:
            with phase("supervised: backward"):
                self.scaler.scale(supervised).backward()
        with phase("consistency: forward"), self.autocast():
            consistency = self.settings.alpha * self._divergence(batches["unlabeled"])
        with phase("consistency: backward"):
            loss = consistency if self.staged else supervised + consistency
            self.scaler.scale(loss).backward()
        self.update(self.network, self.optimizer, phase, "consistency: optimizer")
        self.scaler.update()
        if self.settings.mean_teacher:
            with phase("consistency: after"), torch.no_grad():
                self._update_teacher()
        return {"supervised": supervised.detach(), "consistency": consistency.detach()}

    def _divergence(self, views: PairedBatch) -> Tensor:
        size = views.strong.shape[-2:]
        with torch.no_grad():
            self.teacher.eval()
            target = upsampled(self.teacher(views.weak.contiguous()), size).float().softmax(1)
            self.network.train()
            if views.tps is not None:
                target = F.grid_sample(target, _grid(views.tps, size), align_corners=True)
        logits = upsampled(self.network(views.strong.contiguous()), size)
        log_prob = logits.float().log_softmax(1)
        divergence = F.kl_div(log_prob, target, reduction="none").sum(1)
        return (divergence * views.valid).sum() / views.valid.sum()

    def _update_teacher(self) -> None:
        decay = self.settings.ema_decay
        for old, new in zip(self.teacher.parameters(), self.network.parameters(), strict=True):
            old.mul_(decay).add_(new, alpha=1 - decay)
        for old, new in zip(self.teacher.buffers(), self.network.buffers(), strict=True):
            old.copy_(decay * old + (1 - decay) * new)


def planar(network: nn.Module) -> nn.Module:
    """Lay a network's weights out as NCHW in place, as released code has them; ours are built
    channels-last, and weights decide the layout of a convolution's output."""
    return cast(Any, network).to(memory_format=torch.contiguous_format)


def plain_batches(
    batches: Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> dict[str, LabeledBatch | PairedBatch]:
    """Return batches with the same images, NCHW and of `dtype`; autocast takes float32."""
    return {name: _plain_batch(batch, dtype) for name, batch in batches.items()}


def _plain_batch(
    batch: LabeledBatch | PairedBatch, dtype: torch.dtype
) -> LabeledBatch | PairedBatch:
    if isinstance(batch, LabeledBatch):
        return replace(batch, image=batch.image.to(dtype).contiguous())
    weak, strong = (image.to(dtype).contiguous() for image in (batch.weak, batch.strong))
    second = batch.second
    if second is not None:
        second = replace(second, strong=second.strong.to(dtype).contiguous())
    return replace(batch, weak=weak, strong=strong, second=second)


def upsampled(logits: Tensor, size: Any) -> Tensor:
    """Return logits (N, C, H, W) at the image's size."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def mix(map: Tensor, boxes: CutMixBoxes) -> Tensor:
    """Mix maps (N, H, W) or (N, C, h, w) of a batch by boxes of its images."""
    mask = boxes.mask(stride_of(map, boxes.size))
    return torch.where(mask if map.ndim == 3 else mask[:, None], map[boxes.partner], map)


def _grid(tps: TPS, size: Any) -> Tensor:
    """Return where each pixel is sampled, (N, H, W, 2) in [-1, 1], x then y."""
    height, width = size
    device = tps.points.device
    y = torch.linspace(0, 1, height, device=device)[:, None].expand(height, width)
    x = torch.linspace(0, 1, width, device=device)[None].expand(height, width)
    return 2 * (torch.stack((x, y), dim=-1) + tps_displacement(tps, (height, width))) - 1


def build_plain_optimizer(
    networks: Iterable[nn.Module], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """Return torch's optimizer with its defaults but the recipe's constants, as code mostly has."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    shared: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.name == "sgd":
        return torch.optim.SGD(
            parameters, momentum=settings.momentum, nesterov=settings.nesterov, **shared
        )
    kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    return kind(parameters, betas=settings.betas, **shared)
