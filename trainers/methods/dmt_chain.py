"""DMT for image classification (Feng et al., Section 4.2.1): one link of its chain, a network that
is trained from scratch on masks and on the previous network's pseudo-labels.

    each step:  u, y_A, c_A <- pseudo-labeled batch;  x, y <- labeled batch, all by RandAugment
                gamma  <- gamma_max exp(-5 (1 - t/T)^2)
                w      <- Eq. 6 with F([u, x]), an extra pass without gradient;  1 for x
                lambda <- Beta(.75, .75), the larger side
                L      <- mean of w' (lambda CE(y_i, F(z')) + (1 - lambda) CE(y_j, F(z')))
                          z' = lambda z_i + (1 - lambda) z_j, w' alike       mixup, j a permutation
                step of the optimizer on L;  F' <- .999 F' + .001 F,         the network reported

The paper prints exp(+5 ...), its code has the minus sign. Its code averages F' the wrong way round
and leaves batch statistics out; here F' is an average in all its tensors, and F is scored beside it
at the end. The extra pass leaves the running statistics alone; `weight_batch_norm batch` is the
code's. Curriculum labeling, the paper's baseline, is form plain.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels import dynamic_weights, ema_update
from ...models.norm import batch_norm_policy
from ...pipelines.batches import LabeledBatch
from ...pipelines.settings import StrongSettings
from ..engine.runtime import Runtime, unwrap
from ..engine.settings import RunSettings
from ..engine.stages import Method, Stage
from ..engine.streams import Batches, StreamSpec


@dataclass(frozen=True, kw_only=True)
class DmtLinkSettings(RunSettings):
    """A classifier that learns from labels and, where given, from another's pseudo-labels."""

    labels: str = ""
    """folder of pseudo-labels that `warpseg pseudo-label` made; without one, the link F^0 that
    learns from true labels alone"""
    unlabeled_batch_size: int = 448
    """pseudo-labeled images of a step on each rank"""
    augmentation: StrongSettings = field(default_factory=lambda: StrongSettings(view="randaugment"))
    """what changes all images, labeled and pseudo-labeled"""
    form: Literal["dynamic", "naive", "plain"] = "dynamic"
    """dynamic: Eq. 6; naive: gamma1 in all its cases; plain: all weigh 1 (curriculum labeling)"""
    gamma1: float = 4.0
    """exponent of the weight where both agree, at the end of the run"""
    gamma2: float = 4.0
    """exponent of the weight where the pseudo-label is the surer one, at the end of the run"""
    mixup: float = 0.75
    """both parameters of mixup's Beta distribution; 0 mixes nothing"""
    ema_decay: float = 0.999
    """share of the reported network that a step keeps"""
    weight_batch_norm: Literal["batch_frozen", "batch"] = "batch_frozen"
    """statistics of the pass that gives the weights: those of the batch; batch also moves the
    running ones, as in the released code"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unlabeled_batch_size < 1:
            raise ValueError(
                f"--unlabeled-batch-size must be at least 1; got {self.unlabeled_batch_size}"
            )
        for name in ("gamma1", "gamma2", "mixup"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must be 0 or more; got {getattr(self, name)}")
        if not 0 <= self.ema_decay <= 1:
            raise ValueError(f"--ema-decay must lie in [0, 1]; got {self.ema_decay}")

    def strong_view(self) -> StrongSettings:
        """Return the augmentation."""
        return self.augmentation

    def streams(self) -> dict[str, StreamSpec]:
        """Return the streams: pseudo-labeled images, where there are any, and labeled ones."""
        sizes = {"labeled": self.batch_size}
        if self.labels:
            sizes = {"pseudo": self.unlabeled_batch_size, **sizes}
        return {
            name: StreamSpec(
                kind="labeled",
                subset="labeled" if name == "labeled" else "unlabeled",
                batch_size=size,
                strong=self.augmentation,
                strong_share=1.0,
                pseudo=Path(self.labels) if name == "pseudo" else None,
            )
            for name, size in sizes.items()
        }


class DmtLink(Method):
    """Cross-entropy of mixed images under mixed dynamic weights."""

    joins_batches = True

    def __init__(self, settings: DmtLinkSettings, runtime: Runtime, num_classes: int) -> None:
        self.settings = settings
        self.streams = settings.streams()
        self.student = runtime.train_network(settings.network, num_classes)
        self.average = runtime.place(runtime.frozen_copy(self.student))
        self.networks = {"student": self.student, "average": self.average}
        self.optimized = {"student": ("student",)}
        self.evaluated = "average"
        self.also_evaluated = ("student",)
        self.stages = (
            Stage(name="mixed", loss=self.mixed, optimizer="student", after=self.update_average),
        )

    def mixed(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Mean weighted cross-entropy of the mixed batch, and the shares of the three cases."""
        taken = {name: batches[name] for name in self.streams}
        image = torch.cat([batch.image for batch in taken.values()])
        label = torch.cat([batch.mask for batch in taken.values()]).flatten()
        weight, shares = self._weigh(taken, image, step)
        share, partner = draw_mixup(len(image), self.settings.mixup, image.device)
        mixed = torch.lerp(image[partner], image, share.to(image.dtype))
        weight = torch.lerp(weight[partner], weight, share.to(weight.dtype))
        logits = self.student(mixed.contiguous(memory_format=torch.channels_last)).flatten(1)
        own, other = (
            F.cross_entropy(logits, target.long(), reduction="none")
            for target in (label, label[partner])
        )
        loss = (weight * (share * own + (1 - share) * other)).mean()
        return {"loss": loss, **shares}

    def update_average(self, step: int) -> None:
        """Move the reported network, weights and batch-norm statistics alike."""
        ema_update(self.average, unwrap(self.student), self.settings.ema_decay)

    def _weigh(
        self, taken: dict[str, LabeledBatch], image: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weight of each image (Eq. 6), and what is logged of the cases."""
        settings = self.settings
        plain = settings.form == "plain" or settings.gamma1 == settings.gamma2 == 0
        if plain or "pseudo" not in taken:
            return torch.ones(len(image), device=image.device), {}
        with torch.no_grad(), batch_norm_policy(self.student, settings.weight_batch_norm):
            logits = self.student(image)
        pseudo = taken["pseudo"]
        assert pseudo.confidence is not None
        factor = rise(step, settings.num_steps)
        taught, cases = dynamic_weights(
            logits[: len(pseudo.mask)],
            pseudo.mask,
            pseudo.confidence,
            gamma1=factor * settings.gamma1,
            gamma2=factor * settings.gamma2,
            form=settings.form,
        )
        weight = taught.new_ones(len(image))
        weight[: len(taught)] = taught.flatten()
        shares = {name: count / len(taught) for name, count in cases._asdict().items()}
        return weight, {**shares, "weight": taught.mean()}


def rise(step: int, num_steps: int) -> float:
    """Return the share of its greatest value that gamma has at a step counted from 0."""
    return math.exp(-5 * (1 - step / num_steps) ** 2)


def draw_mixup(count: int, alpha: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw the share of an image in its mixture, at least .5, and its partners (count,) int64.

    Zhang et al., 2018, with the larger side of Beta(alpha, alpha); alpha 0 mixes nothing. The share
    is 0-d. Drawn on the CPU by torch's generator, which the engine seeds at each step.
    """
    share = torch.ones(())
    if alpha > 0:
        drawn = torch.distributions.Beta(alpha, alpha).sample()
        share = torch.maximum(drawn, 1 - drawn)
    partner = torch.randperm(count)
    return share.to(device, non_blocking=True), partner.to(device, non_blocking=True)
