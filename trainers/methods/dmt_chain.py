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
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels import dynamic_weights, ema_update
from ...models.norm import batch_norm_policy
from ...pipelines.batches import LabeledBatch
from ..engine.runtime import Runtime, unwrap
from ..engine.stages import Method, Stage
from ..engine.streams import Batches, StreamSpec
from .registry import method
from .settings.dmt_chain import DmtLinkSettings


@method("dmt-link", DmtLinkSettings)
class DmtLink(Method):
    """Cross-entropy of mixed images under mixed dynamic weights."""

    joins_batches = True

    def __init__(self, settings: DmtLinkSettings, runtime: Runtime, num_classes: int) -> None:
        self.settings = settings
        self.streams = streams_of(settings)
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


def streams_of(settings: DmtLinkSettings) -> dict[str, StreamSpec]:
    """Return the streams: pseudo-labeled images, where there are any, and labeled ones."""
    sizes = {"labeled": settings.batch_size}
    if settings.labels:
        sizes = {"pseudo": settings.unlabeled_batch_size, **sizes}
    return {
        name: StreamSpec(
            kind="labeled",
            subset="labeled" if name == "labeled" else "unlabeled",
            batch_size=size,
            strong=settings.augmentation,
            strong_share=1.0,
            pseudo=Path(settings.labels) if name == "pseudo" else None,
        )
        for name, size in sizes.items()
    }
