"""FixMatch for segmentation (Sohn et al. 2020), in the two forms of UniMatch's released codes.

    each step:  x, y <- labeled batch       u_w, u_s <- weak and strong views of unlabeled crops
                form of UniMatch V2 (--labeler teacher, the default):
                    y_u, c <- teacher(u_w)                                     no gradient
                    u_s, y_s, c_s <- boxes from the batch reversed, in half of the images
                    z_x, z_s <- student(cat(x, u_s))
                form of UniMatch V1 (--labeler student):
                    z_x, z_w <- student(cat(x, u_w));  y_u, c <- z_w           no gradient
                    u_s, y_s, c_s <- boxes;  z_s <- student(u_s)               its own batch
                L <- (CE(z_x, y) + alpha sum CE(z_s, y_s) [c_s >= tau] / #shown) / 2
                step of the optimizer on L
                teacher <- moving average of the student, share min(1 - 1/(t+1), decay) kept

Where the passes on x and u_s do not share batch statistics, each is a stage of its own: the same
gradient, and the peak memory of the larger one.
"""

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...kernels import ema_update
from ...kernels.encoded import View, joined
from ...models.norm import find
from ..engine.runtime import Runtime, unwrap
from ..engine.stages import Method, Stage
from ..engine.streams import Batches
from .registry import method
from .settings.fixmatch import FixMatchSettings
from .shared.class_thresholds import class_thresholds
from .shared.weak_to_strong import (
    Target,
    ema_share,
    label_views,
    labeled_loss,
    mixed_images,
    mixing_of,
    stream_specs,
    strong_pass,
    taught_loss,
    weak_label,
)


@method("fixmatch", FixMatchSettings)
class FixMatch(Method):
    """Labels, then the strong view that they teach."""

    def __init__(self, settings: FixMatchSettings, runtime: Runtime, num_classes: int) -> None:
        self.settings, self.runtime, self.num_classes = settings, runtime, num_classes
        self.student = self.labeler = runtime.train_network(settings.network, num_classes)
        self.networks: dict[str, nn.Module] = {"student": self.student}
        self.evaluated = "student"
        last: dict[str, Any] = {"optimizer": "student"}
        if settings.labeler == "teacher":
            self.labeler = runtime.frozen_copy(self.student)
            self.networks["teacher"] = self.labeler
            self.evaluated, self.also_evaluated = "teacher", ("student",)
            last["after"] = self.update_teacher
        self.optimized = {"student": ("student",)}
        self.thresholds = class_thresholds(settings, runtime, num_classes, self.networks)
        self.streams = stream_specs(settings, second=False)
        joint = settings.labeler != "student" and bool(find(unwrap(self.student), _BatchNorm))
        self.stages = (
            Stage(name="labeled", loss=self.labeled),
            Stage(name="strong", loss=self.strong, **last),
        )
        if joint:
            self.stages = (Stage(name="joint", loss=self.joint, **last),)

    def regime(self, step: int) -> Hashable:
        """Return what the stages take from the number of a step: the share that a teacher keeps."""
        return ema_share(step, self.settings.ema_decay) if "teacher" in self.networks else ()

    def labeled(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Half of L_x; in the form of V1 the student labels weak views in the same pass."""
        labeled, views = batches["labeled"], batches["unlabeled"]
        count, own = len(labeled.image), self.settings.labeler == "student"
        logits = self.student(joined((labeled.image, views.weak)) if own else labeled.image)
        if own:
            batches["weak"] = weak_label(logits[count:], views, self.thresholds)
        loss = labeled_loss(logits[:count], labeled.mask, self.settings, self.runtime)
        return {"loss": loss / 2}

    def strong(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Alpha / 2 of the loss of the mixed strong view, in a batch of its own."""
        image, target = self._mixed(batches)
        with strong_pass(self.settings, self.student):
            logits = self.student(image)
        loss = taught_loss(logits, target, self.runtime) * (self.settings.alpha / 2)
        return {"loss": loss, "taught": target.share}

    def joint(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Both losses of one pass, whose batch norms see labeled and strong images together."""
        labeled, (image, target) = batches["labeled"], self._mixed(batches)
        logits = self.student(joined((labeled.image, image)))
        count = len(labeled.image)
        supervised = labeled_loss(logits[:count], labeled.mask, self.settings, self.runtime)
        strong = taught_loss(logits[count:], target, self.runtime)
        loss = torch.add(supervised, strong, alpha=self.settings.alpha) / 2
        return {"loss": loss, "labeled": supervised, "strong": strong, "taught": target.share}

    def update_teacher(self, step: int) -> None:
        """Move the teacher, its statistics too, towards the student."""
        kept = ema_share(step, self.settings.ema_decay)
        ema_update(self.labeler, unwrap(self.student), kept)

    def _mixed(self, batches: Batches) -> tuple[View, Target]:
        """Return the mixed strong view and what is taught of it."""
        views = batches["unlabeled"]
        weak = batches.get("weak") or label_views(self.labeler, views, self.thresholds)
        mixing = mixing_of(self.settings, weak, self.num_classes)
        image = mixed_images([views.strong], [mixing])
        return image, weak.target(self.settings.threshold).mixed(mixing)
