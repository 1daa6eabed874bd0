"""DMT: dynamic mutual training (Feng et al., "DMT: Dynamic mutual training for semi-supervised
learning", Section 4.1), one of its phases: a network learns from another one's pseudo-labels.

    each step:  u, y_A, c_A <- pseudo-labeled batch;  x, y <- labeled batch
                logits of F_B([u, x]), one forward pass
                w  <- p_B^gamma1   y_A = y_B                  agreement                     Eq. 6
                      p_B^gamma2   y_A != y_B, c_A >= c_B     the label is the surer one
                      0            y_A != y_B, c_A <  c_B     the network is
                L  <- sum of w CE(y_A, F_B(u)) + sum of CE(y, F_B(x)) over kept pixels   Eq. 7-10
                step of the optimizer on L

The ablations of Section 5.4 are forms of the loss (`kernels.dynamic_ce`); which network labels for
which, and how often, is the plan of dmt_rounds.py. As in the released code the sum is divided by
the kept pixels of the joint batch.
"""

from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ... import IGNORE
from ...kernels import Cases, dynamic_ce
from ...pipelines.batches import LabeledBatch, PairedBatch
from ...pipelines.settings import StrongSettings
from ..engine.runtime import Runtime
from ..engine.stages import Method, Stage
from ..engine.streams import Batches, StreamSpec
from .registry import method
from .settings.dmt import DmtSettings
from .shared.losses import dice_term, label_loss


@method("dmt", DmtSettings)
class Dmt(Method):
    """The dynamic loss on pseudo-labels and cross-entropy on masks, in one pass."""

    joins_batches = True

    def __init__(self, settings: DmtSettings, runtime: Runtime, num_classes: int) -> None:
        self.settings = settings
        self.runtime = runtime
        self.streams = streams_of(settings)
        self.student = runtime.train_network(settings.network, num_classes)
        self.networks = {"student": self.student}
        self.optimized = {"student": ("student",)}
        self.evaluated = "student"
        self.stages = (Stage(name="mutual", loss=self.mutual, optimizer="student"),)

    def regime(self, step: int) -> Hashable:
        """Return what the stages take from the number of a step: nothing."""
        return ()

    def mutual(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """The combined loss (Eq. 10), and the shares of the three cases among pseudo-labels."""
        taught, labeled = self._taught(batches["pseudo"]), cast(LabeledBatch, batches["labeled"])
        assert taught.confidence is not None
        logits = self.student(torch.cat((taught.image, labeled.image)))
        count = (taught.mask != IGNORE).sum()
        if self.settings.normalizer == "separate":
            own, given = logits.split((len(taught.mask), len(labeled.mask)))
            loss, cases = self._dynamic(own, taught.mask, taught.confidence, None)
            loss = loss + label_loss(given, labeled.mask, self.settings, self.runtime)
        else:
            label = torch.cat((taught.mask, labeled.mask))
            confidence = torch.ones_like(label, dtype=taught.confidence.dtype)
            confidence[: len(taught.mask)] = taught.confidence
            sure = torch.arange(len(label), device=label.device) >= len(taught.mask)
            loss, cases = self._dynamic(logits, label, confidence, sure)
            if self.settings.rare.dice:
                given = logits[len(taught.mask) :]
                loss = loss + dice_term(given, labeled.mask, self.settings, self.runtime)
        shares = {name: n / count.clamp(min=1) for name, n in cases._asdict().items()}
        return {"loss": loss, **shares, "kept": count / taught.mask.numel()}

    def _taught(self, batch: LabeledBatch | PairedBatch) -> LabeledBatch:
        """Return the pseudo-labeled batch; without labels, for `online`, any class stands in."""
        if isinstance(batch, LabeledBatch):
            return batch
        return LabeledBatch(
            image=batch.weak,
            mask=torch.where(batch.valid, 0, IGNORE).to(torch.uint8),
            confidence=batch.valid.to(batch.weak.dtype),
            keys=batch.keys,
        )

    def _dynamic(
        self, logits: Tensor, label: Tensor, confidence: Tensor, labeled: Tensor | None
    ) -> tuple[Tensor, Cases]:
        settings = self.settings
        # Which pixels `online` keeps is known only inside: then each rank has a mean of its own.
        count = self.runtime.average((label != IGNORE).sum())
        return dynamic_ce(
            logits,
            label,
            confidence,
            labeled=labeled,
            gamma1=settings.gamma1,
            gamma2=settings.gamma2,
            form=settings.form,
            threshold=settings.threshold,
            denominator="kept" if settings.form == "online" else count,
        )


def streams_of(settings: DmtSettings) -> dict[str, StreamSpec]:
    """Return the streams: pseudo-labeled images first, which make the epochs.

    Raises ValueError where pseudo-labels are wanted, but none are named.
    """
    labeled = StreamSpec(kind="labeled", subset="labeled", batch_size=settings.batch_size)
    if settings.form == "online":
        pseudo = StreamSpec(
            kind="paired",
            subset="unlabeled",
            batch_size=settings.unlabeled_batch_size,
            strong=StrongSettings(view="none"),
            geometry=None
            if settings.augment_unlabeled
            else replace(settings.geometry, scale=(1.0, 1.0), flip=0.0),
        )
    elif settings.labels:
        pseudo = StreamSpec(
            kind="labeled",
            subset="unlabeled",
            batch_size=settings.unlabeled_batch_size,
            pseudo=Path(settings.labels),
        )
    else:
        raise ValueError(
            "training on pseudo-labels needs --labels FOLDER, made by warpseg pseudo-label; a "
            "dmt recipe without -phase makes them itself"
        )
    return {"pseudo": pseudo, "labeled": labeled}
