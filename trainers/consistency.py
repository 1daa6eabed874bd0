"""One-way consistency with PhTPS (Grubisic, Orsic, Segvic: "Revisiting consistency for semi-
supervised semantic segmentation"), variant 1w-ct: one way, clean teacher.

    each step:  x, y  <- labeled batch                 x_u <- unlabeled batch
                L_s   <- mean of CE(h(x), y);          backward, and its graph is freed
                p_t   <- softmax h'(x_u)               no gradient; h' = h (simple), or its
                                                       moving average (Mean Teacher)
                L_c   <- mean over valid pixels of KL(T_G(p_t) || h(T_G(T_P(x_u))))     Eq. 3-5
                alpha L_c backward; step of the optimizer on L_s + alpha L_c            Eq. 2
                Mean Teacher: h' <- .99 h' + .01 h

The teacher uses running statistics and the perturbed student batch statistics that it does not
keep, so only clean inputs move the running statistics. Deviations of the released code are
settings.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..kernels import consistency_kl, ema_update
from ..models.norm import batch_norm_policy
from ..pipelines.settings import StrongSettings
from .data import Batches, StreamSpec
from .engine import Method, Stage
from .losses import supervised_loss
from .runtime import Runtime, unwrap
from .settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class ConsistencySettings(RunSettings):
    """One-way consistency with a clean teacher."""

    strong: StrongSettings = field(default_factory=StrongSettings)
    """the perturbation of the student's unlabeled input"""
    unlabeled_batch_size: int = 8
    """unlabeled images of a step on each rank"""
    unlabeled: Literal["all", "unlabeled"] = "all"
    """all: the unlabeled stream also carries the labeled images, without masks, as in the paper"""
    mean_teacher: bool = False
    """the teacher is a moving average of the student, not the student itself"""
    ema_decay: float = 0.99
    """share of the old teacher that a step of Mean Teacher keeps"""
    alpha: float = 0.5
    """weight of the consistency loss (Eq. 2)"""
    blend: Literal["probabilities", "logits"] = "probabilities"
    """what of the teacher is warped; the released code warps logits"""
    kl_mean: Literal["pooled", "per_image"] = "pooled"
    """mean of the divergence over all valid pixels of the batch, or per image first (Eq. 4)"""
    teacher_batch_norm: Literal["running", "batch"] = "running"
    """statistics of the teacher's pass; the released code of the simple form uses batch"""
    student_batch_norm: Literal["batch_frozen", "batch"] = "batch_frozen"
    """batch: the perturbed pass also moves the running statistics (full-resolution Cityscapes)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unlabeled_batch_size < 1:
            raise ValueError(
                f"--unlabeled-batch-size must be at least 1; got {self.unlabeled_batch_size}"
            )
        if self.alpha < 0:
            raise ValueError(f"--alpha must be >= 0; got {self.alpha}")
        if not 0 <= self.ema_decay <= 1:
            raise ValueError(f"--ema-decay must lie in [0, 1]; got {self.ema_decay}")

    def strong_view(self) -> StrongSettings:
        """Return the perturbation of the student's unlabeled input."""
        return self.strong


class Consistency(Method):
    """Supervised cross-entropy, then the divergence between the warped clean teacher and the
    perturbed student."""

    def __init__(self, settings: ConsistencySettings, runtime: Runtime, num_classes: int) -> None:
        self.settings = settings
        self.runtime = runtime
        self.student = runtime.train_network(settings.network, num_classes)
        self.networks = {"student": self.student}
        self.teacher = unwrap(self.student)
        if settings.mean_teacher:
            self.teacher = self.networks["teacher"] = runtime.frozen_copy(self.student)
        self.optimized = {"student": ("student",)}
        self.evaluated = "student"
        self.streams = {
            "labeled": StreamSpec(kind="labeled", subset="labeled", batch_size=settings.batch_size),
            "unlabeled": StreamSpec(
                kind="paired",
                subset=settings.unlabeled,
                batch_size=settings.unlabeled_batch_size,
                strong=settings.strong,
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

    def supervised(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Mean cross-entropy over the labeled pixels of all ranks."""
        return {"loss": supervised_loss(self.student, batches["labeled"], self.runtime)}

    def consistency(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Alpha times the mean divergence over the valid pixels of all ranks (or of each image)."""
        settings, unlabeled = self.settings, batches["unlabeled"]
        with torch.no_grad(), batch_norm_policy(self.teacher, settings.teacher_batch_norm):
            target = self.teacher(unlabeled.weak)
        with batch_norm_policy(self.student, settings.student_batch_norm):
            logits = self.student(unlabeled.strong)
        pooled = settings.kl_mean == "pooled"
        divergence = consistency_kl(
            logits,
            target,
            size=unlabeled.strong.shape[-2:],
            tps=unlabeled.tps,
            valid=unlabeled.valid,
            blend=settings.blend,
            reduction=settings.kl_mean,
            denominator=self.runtime.average(unlabeled.valid.sum()) if pooled else None,
        )
        return {"loss": settings.alpha * divergence, "divergence": divergence}

    def update_teacher(self, step: int) -> None:
        """Move the Mean Teacher, weights and batch-norm statistics alike, towards the student."""
        if self.settings.mean_teacher:
            ema_update(self.teacher, unwrap(self.student), self.settings.ema_decay)
