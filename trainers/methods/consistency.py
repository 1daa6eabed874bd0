"""Consistency with PhTPS (Grubisic, Orsic, Segvic: "Revisiting consistency for semi-supervised
semantic segmentation"), by default variant 1w-ct: one way, clean teacher.

    each step:  x, y  <- labeled batch                 x_u <- unlabeled batch
                L_s   <- mean of CE(h(x), y);          backward, and its graph is freed
                p_t   <- softmax h'(x_u)               no gradient; h' = h (simple), or its
                                                       moving average (Mean Teacher)
                L_c   <- mean over valid pixels of D(T_G(p_t), h(T_G(T_P(x_u))))        Eq. 3-5
                alpha L_c backward; step of the optimizer on L_s + alpha L_c            Eq. 2
                Mean Teacher: h' <- .99 h' + .01 h

Variants of L_c (Section 4.4), T a perturbation, ' a pass that takes no gradient:
    1w-ct  D(h'(x), h(T(x)))     1w-cs  D(h'(T(x)), h(x))
    2w-c1  D(h(T(x)), h(x))      1w-p2  D(h'(T_1(x)), h(T_2(x))), T_1's warp undone by splatting
The text writes 1w-cs and 2w-c1 with the clean prediction first, D(h(x), .), but the released code,
which made Tables 5 and 6, has the perturbed one as the target: `direction`.

A student that sees a perturbed image uses batch statistics that it does not keep, so clean inputs
alone move the running statistics. The teacher uses batch statistics, as in the released code, which
clean images move too; the text's running ones (`--teacher-batch-norm running`, the recipes of the
paper's tables) know the images with masks alone, and mislead in scenes that no mask shows. Other
deviations of the released code are settings. CutMix (French et al.) is one of the perturbations:
MT-CutMix~ is `cutmix`, `strong.view none`, `divergence squared_l2`, `threshold .97` (its target is
soft, as in its code, or one-hot as in Table 7: `target`). Images that are classified as wholes are
perturbed alike; their class is not.
"""

from collections.abc import Hashable
from functools import partial
from typing import Any

from torch import Tensor

from ... import IGNORE
from ...kernels import (
    ClassMasks,
    CutMixBoxes,
    Mixing,
    class_masks,
    cutmix,
    cutmix_boxes,
    ema_update,
    mix,
    pseudo_label,
)
from ...models.norm import batch_norm_policy
from ...pipelines.batches import PairedBatch
from ..engine.runtime import Runtime, unwrap
from ..engine.stages import Method, Stage
from ..engine.steps.draws import drawn
from ..engine.streams import Batches, StreamSpec
from .registry import method
from .settings.consistency import ConsistencySettings
from .shared.class_thresholds import class_thresholds
from .shared.losses import supervised_loss
from .shared.teaching import teaching, view_divergence


@method("consistency", ConsistencySettings)
class Consistency(Method):
    """Supervised cross-entropy, then the divergence between the predictions of two views."""

    def __init__(self, settings: ConsistencySettings, runtime: Runtime, num_classes: int) -> None:
        self.settings = settings
        self.runtime = runtime
        self.student = runtime.train_network(settings.network, num_classes)
        self.networks = {"student": self.student}
        self.teacher = unwrap(self.student)
        if settings.mean_teacher:
            self.teacher = self.networks["teacher"] = runtime.frozen_copy(self.student)
        self.options: dict[str, Any] = {
            "blend": settings.blend,
            "divergence": settings.divergence,
            "threshold": None if settings.rare.thresholds else settings.threshold,
        }
        self.thresholds = class_thresholds(settings, runtime, num_classes, self.networks)
        self.optimized = {"student": ("student",)}
        self.evaluated = "student"
        self.also_evaluated = ("teacher",) if settings.mean_teacher else ()
        self.streams = {
            "labeled": StreamSpec(kind="labeled", subset="labeled", batch_size=settings.batch_size),
            "unlabeled": StreamSpec(
                kind="paired",
                subset=settings.unlabeled,
                batch_size=settings.unlabeled_batch_size,
                strong=settings.strong,
                second_view=settings.variant == "1w-p2",
            ),
        }
        self.stages = (
            Stage(name="supervised", loss=self.supervised),
            Stage(
                name="consistency",
                loss=self.consistency,
                optimizer="student",
                after=self.update_teacher,
            ),
        )

    def regime(self, step: int) -> Hashable:
        """Return what the stages take from the number of a step: nothing."""
        return ()

    def supervised(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Mean cross-entropy over the labeled pixels of all ranks."""
        return {
            "loss": supervised_loss(self.student, batches["labeled"], self.settings, self.runtime)
        }

    def consistency(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Alpha times the mean divergence over the valid pixels of all ranks (or of each image)."""
        settings, views = self.settings, batches["unlabeled"]
        boxes: Mixing | None = None
        if settings.cutmix and settings.mixing == "boxes":
            boxes = self._draw_boxes(views.strong)
        strong = views.strong if boxes is None else cutmix(views.strong, boxes)
        match settings.variant:
            case "1w-ct":
                target = self._teach(views.weak)
                if settings.mixing == "classes":
                    boxes = self._draw_classes(target, views)
                    strong = mix(views.strong, boxes)
                logits = self._learn(strong, settings.student_batch_norm)
            case "1w-cs":
                logits = self._teach(strong, clean=False)
                target = self._learn(views.weak, "batch")
            case "2w-c1":
                target = self._learn(views.weak, "batch")
                logits = self._learn(strong, settings.student_batch_norm)
            case "1w-p2":
                target = self._teach(views.second.strong, clean=False)
                logits = self._learn(strong, settings.student_batch_norm)
        value = view_divergence(
            logits,
            target,
            views,
            self.runtime,
            boxes=boxes,
            sure=self._sure(target, views),
            from_second=settings.variant == "1w-p2",
            reduction=settings.kl_mean,
            reverse=settings.variant in ("1w-cs", "2w-c1") and settings.direction == "code",
            hard=settings.target == "hard",
            **self.options,
        )
        return {"loss": settings.alpha * value, "divergence": value}

    def update_teacher(self, step: int) -> None:
        """Move the Mean Teacher, weights and batch-norm statistics alike, towards the student."""
        if self.settings.mean_teacher:
            ema_update(self.teacher, unwrap(self.student), self.settings.ema_decay)

    def _teach(self, image: Tensor, *, clean: bool = True) -> Tensor:
        policy = self.settings.teacher_batch_norm
        if policy == "batch" and not clean:
            policy = "batch_frozen"
        with teaching(self.teacher, policy):
            return self.teacher(image)

    def _learn(self, image: Tensor, batch_norm: str) -> Tensor:
        # Where two students pass, the perturbed one comes last: a backward pass through "running"
        # statistics must find them as they were.
        with batch_norm_policy(self.student, batch_norm):
            return self.student(image)

    def _sure(self, target: Tensor, views: PairedBatch) -> Tensor | None:
        """Return which pixels of the clean view are sure for their class, (N, H, W) bool; None
        where one threshold is for all (`options`)."""
        if self.thresholds is None:
            return None
        made = pseudo_label(target.detach(), (views.weak.shape[-2], views.weak.shape[-1]))
        self.thresholds.update(made.label, made.confidence, views.shown())
        assert self.settings.threshold is not None
        return self.thresholds.relative(made.label, made.confidence) > self.settings.threshold

    def _draw_classes(self, target: Tensor, views: PairedBatch) -> ClassMasks:
        size = (views.weak.shape[-2], views.weak.shape[-1])
        label = pseudo_label(target, size).label
        return class_masks(label.masked_fill(~views.shown(), IGNORE), target.shape[1])

    def _draw_boxes(self, image: Tensor) -> CutMixBoxes:
        size = (image.shape[-2], image.shape[-1])
        draw = partial(cutmix_boxes, len(image), size, preset="britefury")
        return drawn(draw, image.device)
