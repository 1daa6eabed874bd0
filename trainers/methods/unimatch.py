"""UniMatch, weak-to-strong consistency revisited (Yang, Qi, Feng, Zhang, Shi, CVPR 2023).

    each step:  x, y <- labeled batch        u_w, s1, s2 <- weak and two strong views of a crop
                f <- encoder(cat(x, u_w))
                z, z_fp <- decoder(cat(f, channel dropout of f))           one batch, twice as long
                y_u, c <- z of u_w                                                      no gradient
                L_x <- CE(z of x, y);   L_fp <- sum CE(z_fp of u_w, y_u) [c >= tau] / #shown
                s1, s2 and the labels of each <- boxes from the batch reversed, by view and image
                z1, z2 <- student(cat(s1, s2));   L_1, L_2 <- as L_fp, with the mixed labels
                step of the optimizer on (L_x + alpha ((L_1 + L_2) / 4 + L_fp / 2)) / 2

The dropped half of labeled images has no loss, but takes part in the decoder's batch statistics.
The released code labels what it pastes by one more pass, in evaluation mode, on another crop of the
same image; here it is the batch reversed, as in UniMatch V2, which its author found to do as well.
"""

from collections.abc import Hashable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...kernels import ema_update
from ..engine.runtime import Runtime, unwrap
from ..engine.stages import Method, Stage
from ..engine.streams import Batches
from .registry import method
from .settings.unimatch import UniMatchSettings
from .shared.class_thresholds import class_thresholds
from .shared.dropped import with_dropped
from .shared.weak_to_strong import (
    ema_share,
    label_views,
    labeled_loss,
    mixed_images,
    mixing_of,
    stream_specs,
    strong_pass,
    strong_views,
    taught_loss,
    weak_label,
)


@method("unimatch", UniMatchSettings)
class UniMatch(Method):
    """Labels and dropped features in one pass, then both strong views in another."""

    def __init__(self, settings: UniMatchSettings, runtime: Runtime, num_classes: int) -> None:
        self.settings, self.runtime, self.num_classes = settings, runtime, num_classes
        self.student = runtime.train_network(settings.network, num_classes)
        self.drop = partial(with_dropped, rate=settings.feature_dropout)
        self.networks: dict[str, nn.Module] = {"student": self.student}
        self.optimized = {"student": ("student",)}
        self.evaluated = "student"
        last: dict[str, Any] = {"optimizer": "student"}
        if settings.labeler == "teacher":
            self.networks["teacher"] = runtime.frozen_copy(self.student)
            self.also_evaluated = ("teacher",)
            last["after"] = self.update_teacher
        self.thresholds = class_thresholds(settings, runtime, num_classes, self.networks)
        self.streams = stream_specs(settings, second=True)
        self.stages = (
            Stage(name="weak", loss=self.weak),
            Stage(name="strong", loss=self.strong, **last),
        )

    def regime(self, step: int) -> Hashable:
        """Return what the stages take from the number of a step: the share that a teacher keeps."""
        return ema_share(step, self.settings.ema_decay) if "teacher" in self.networks else ()

    def weak(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """L_x / 2 + alpha L_fp / 4; labels of the weak views go on to the strong ones."""
        settings, labeled, views = self.settings, batches["labeled"], batches["unlabeled"]
        logits = self.student(torch.cat((labeled.image, views.weak)), change=self.drop)
        (clean, dropped), count = logits.chunk(2), len(labeled.image)
        if settings.labeler == "student":
            weak = weak_label(clean[count:], views, self.thresholds)
        else:
            labeler = self.networks.get("teacher", self.student)
            weak = label_views(labeler, views, self.thresholds)
        target = weak.target(settings.threshold)
        supervised = labeled_loss(clean[:count], labeled.mask, settings, self.runtime)
        perturbed = taught_loss(dropped[count:], target, self.runtime)
        batches["weak"] = weak
        loss = torch.add(supervised, perturbed, alpha=settings.alpha / 2) / 2
        return {"loss": loss, "labeled": supervised, "features": perturbed, "taught": target.share}

    def strong(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """alpha (L_1 + L_2) / 8."""
        settings, weak = self.settings, batches["weak"]
        images = strong_views(batches["unlabeled"])
        mixings = [mixing_of(settings, weak, self.num_classes) for _ in images]
        with strong_pass(settings, self.student):
            logits = self.student(mixed_images(images, mixings)).chunk(2)
        target = weak.target(settings.threshold)
        first, second = (
            taught_loss(z, target.mixed(mixing), self.runtime)
            for z, mixing in zip(logits, mixings, strict=True)
        )
        both = first + second
        return {"loss": both * (settings.alpha / 8), "strong": both / 2}

    def update_teacher(self, step: int) -> None:
        """Move the teacher, its statistics too, towards the student."""
        kept = ema_share(step, self.settings.ema_decay)
        ema_update(self.networks["teacher"], unwrap(self.student), kept)
