"""UniMatch V2, pushing the limit of semi-supervised semantic segmentation (Yang et al. 2025).

    each step:  x, y <- labeled batch        u_w, s1, s2 <- weak and two strong views of a crop
                y_u, c <- teacher(u_w)                                                  no gradient
                s1, s2 and the labels of each <- boxes from the batch reversed, by view and image
                L_x <- CE(student(x), y)
                f1, f2 <- M1 encoder(s1), M2 encoder(s2)         M1 + M2 = 2: complementary dropout
                L_1, L_2 <- sum CE(decoder(f_k), y_k) [c_k >= tau] / #shown
                step of the optimizer on (L_x + alpha (L_1 + L_2) / 2) / 2
                teacher <- moving average of the student, share min(1 - 1/(t+1), .996) kept

A random half of the images keeps all its channels in both views. `--network.freeze backbone`
trains the head alone; `--dropout none` and `independent` are rows of the paper's ablation.
"""

from collections.abc import Hashable

from torch import Tensor, nn

from ...kernels import ema_update
from ..engine.runtime import Runtime, unwrap
from ..engine.stages import Method, Stage
from ..engine.streams import Batches
from .registry import method
from .settings.unimatch_v2 import UniMatchV2Settings
from .shared.class_thresholds import class_thresholds
from .shared.dropped import complementary, independent
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
)


@method("unimatch-v2", UniMatchV2Settings)
class UniMatchV2(Method):
    """The labeled pass, then both strong views in another."""

    evaluated = "teacher"
    also_evaluated = ("student",)

    def __init__(self, settings: UniMatchV2Settings, runtime: Runtime, num_classes: int) -> None:
        self.settings, self.runtime, self.num_classes = settings, runtime, num_classes
        self.student = runtime.train_network(settings.network, num_classes)
        self.teacher = runtime.frozen_copy(self.student)
        self.networks: dict[str, nn.Module] = {"student": self.student, "teacher": self.teacher}
        self.optimized = {"student": ("student",)}
        self.thresholds = class_thresholds(settings, runtime, num_classes, self.networks)
        self.streams = stream_specs(settings, second=True)
        self.stages = (
            Stage(name="labeled", loss=self.labeled),
            Stage(name="strong", loss=self.strong, optimizer="student", after=self.update_teacher),
        )
        dropouts = {"complementary": complementary, "independent": independent, "none": None}
        self.change = dropouts[settings.dropout]

    def regime(self, step: int) -> Hashable:
        """Return what the stages take from the number of a step: the teacher's share."""
        return ema_share(step, self.settings.ema_decay)

    def labeled(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """L_x / 2."""
        labeled = batches["labeled"]
        logits = self.student(labeled.image)
        return {"loss": labeled_loss(logits, labeled.mask, self.settings, self.runtime) / 2}

    def strong(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """alpha (L_1 + L_2) / 4."""
        settings, views = self.settings, batches["unlabeled"]
        weak = label_views(self.teacher, views, self.thresholds)
        images = strong_views(views)
        mixings = [mixing_of(settings, weak, self.num_classes) for _ in images]
        with strong_pass(settings, self.student):
            logits = self.student(mixed_images(images, mixings), change=self.change).chunk(2)
        target = weak.target(settings.threshold)
        first, second = (
            taught_loss(z, target.mixed(mixing), self.runtime)
            for z, mixing in zip(logits, mixings, strict=True)
        )
        return {"loss": (first + second) * (settings.alpha / 4), "taught": target.share}

    def update_teacher(self, step: int) -> None:
        """Move the teacher, its statistics too, towards the student."""
        ema_update(self.teacher, unwrap(self.student), ema_share(step, self.settings.ema_decay))
