"""MKD, mutual knowledge distillation (Yuan et al., "Semi-supervised semantic segmentation with
mutual knowledge distillation", Algorithm 1).

    each step:  x, y <- labeled batch       x_w, x_s <- weak and strong views of an unlabeled batch
                x_s  <- CutMix(x_s), three boxes; the same boxes mix the teachers' outputs
                t1, t2 <- argmax T1(x_w), argmax T2(x_w)                    no gradient
                p1, p2 <- FD(S1(x_s)), FD(S2(x_s))                         features augmented, Eq. 3
                L_sup <- CE(S1(x), y) + CE(S2(x), y)
                L_st  <- CE(p1, t2) + CE(p2, t1)                            teacher to other student
                L_ss  <- CE(p1, argmax p2) + CE(p2, argmax p1)              student to student (CPS)
                step of the optimizer on L_sup + alpha L_st + beta L_ss
                T1, T2 <- moving averages of S1, S2, share min(1 - 1/t, gamma) kept

The paper moves the teachers before the forward passes of the next step; here that is after the
optimizer's step, which is the same. FD adds a row of a C x C table to the logits (ISDA with a
diagonal covariance): the shift depends on a pixel's class alone, and is too great for networks from
scratch with a wide classifier (feature_augmentation.py says why; the log shows it). The ablation of
the paper's Table 3 is a set of settings: `teachers`, `strong.view` with `cutmix`, and
`feature_strength`.
"""

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn

from ... import IGNORE
from ...kernels import ema_update, mix, pseudo_label
from ...models import batch_norm_policy
from ...pipelines.batches import PairedBatch
from ..engine.runtime import Runtime, unwrap
from ..engine.stages import Method, Stage
from ..engine.streams import Batches, StreamSpec
from .registry import method
from .settings.mkd import MkdSettings
from .shared.class_thresholds import class_thresholds
from .shared.feature_augmentation import Effect, FeatureAugmentation, own_labels, shift_concern
from .shared.losses import at_stride, label_loss, mean_cross_entropy
from .shared.mixing import draw_mixing

View = tuple[Tensor, Tensor]
"""Logits (N, C, h, w) of a network and the feature (N, A, h, w) before its classifier."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What students and teachers say of some images.

    `known` (N, H, W) uint8 holds IGNORE where nothing is taught, and with `labeled` true classes.
    `clean`: logits by which students label, where these are not those they learn.
    """

    students: list[View]
    teachers: list[View]
    known: Tensor
    labeled: bool
    clean: list[Tensor] = field(default_factory=list)


@method("mkd", MkdSettings)
class Mkd(Method):
    """Supervised losses of two students, then what networks teach each other."""

    ensembles = MappingProxyType({"ensemble": ("student1", "student2")})

    def __init__(self, settings: MkdSettings, runtime: Runtime, num_classes: int) -> None:
        self.settings = settings
        self.runtime = runtime
        self.num_classes = num_classes
        self.students = [runtime.train_network(settings.network, num_classes) for _ in range(2)]
        self.teachers = []
        if settings.teachers != "none":
            self.teachers = [runtime.frozen_copy(student) for student in self.students]
        self.classifiers = [
            cast(Any, unwrap(network)).classifier for network in self.students + self.teachers
        ]
        if settings.feature_strength and not isinstance(self.classifiers[0], nn.Conv2d):
            raise ValueError(
                f"{settings.network.name} has no 1 x 1 classifier for feature augmentation; "
                "use --feature-strength 0"
            )
        shifted = len(self.classifiers) if settings.feature_on == "all" else 2
        self.augmentations = [
            FeatureAugmentation(
                num_classes,
                classifier.in_channels,
                settings.feature_strength,
                settings.feature_ramp,
                runtime.total if runtime.world_size > 1 else None,
            ).to(runtime.device)
            for classifier in self.classifiers[: shifted * (settings.feature_strength > 0)]
        ]
        self.networks = {
            f"{part}{number}": network
            for part, members in (
                ("student", self.students),
                ("teacher", self.teachers),
                ("augmentation", self.augmentations),
            )
            for number, network in enumerate(members, start=1)
        }
        self.thresholds = class_thresholds(settings, runtime, num_classes, self.networks)
        self.optimized = {"students": ("student1", "student2")}
        self.evaluated = "student1"
        teachers = [f"teacher{number}" for number, _ in enumerate(self.teachers, start=1)]
        self.also_evaluated = ("student2", *teachers, "ensemble")
        self.streams = {
            "labeled": StreamSpec(
                kind="labeled",
                subset="labeled",
                batch_size=settings.batch_size,
                weak_photometric=settings.weak_photometric,
            ),
            "unlabeled": StreamSpec(
                kind="paired",
                subset="unlabeled",
                batch_size=settings.unlabeled_batch_size,
                strong=settings.strong,
                weak_photometric=settings.weak_photometric,
            ),
        }
        last: dict[str, Any] = {"optimizer": "students", "after": self.update_teachers}
        self.stages = (
            Stage(name="supervised", loss=self.supervised),
            Stage(name="mutual", loss=self.mutual, **last),
        )
        if settings.consistency_on == "both":
            self.stages = (Stage(name="joint", loss=self.joint, **last),)

    def regime(self, step: int) -> Hashable:
        """Return what the stages take from the number of a step: the share that teachers keep, and
        the trust."""
        return (self._kept(step), self._trust(step))

    def moving(self, step: int) -> Mapping[str, float]:
        """Return the strength of the feature augmentation, which grows through the run."""
        if not self.augmentations:
            return {}
        return {"strength": self.augmentations[0].strength_at(step / self.settings.num_steps)}

    def _kept(self, step: int) -> float:
        return min(1 - 1 / (step + 2), self.settings.gamma)

    def _trust(self, step: int) -> float:
        return min((step + 1) / max(self.settings.rampup_steps, 1), 1.0)

    def supervised(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Cross-entropy of both students on the labeled pixels of all ranks (L_sup)."""
        labeled = batches["labeled"]
        views = self._ask(self.students, labeled.image)
        for augmentation, (_, feature) in zip(self.augmentations, views, strict=False):
            augmentation.statistics.update(feature.detach(), labeled.mask)
        return {"loss": self._label_loss([logits for logits, _ in views], labeled.mask)}

    def mutual(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Return what the networks teach on unlabeled images: alpha L_st + beta L_ss."""
        return self._teach([self._unlabeled_lesson(batches["unlabeled"])], step)

    def joint(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """All losses at once, with networks teaching each other on labeled images as well."""
        labeled = batches["labeled"]
        with self._teaching():
            guides = self._ask(self.teachers, labeled.image)
        students = self._ask(self.students, labeled.image)
        lesson = Lesson(students=students, teachers=guides, known=labeled.mask, labeled=True)
        terms = self._teach([lesson, self._unlabeled_lesson(batches["unlabeled"])], step)
        supervised = self._label_loss([logits for logits, _ in students], labeled.mask)
        return {**terms, "supervised": supervised, "loss": supervised + terms["loss"]}

    def update_teachers(self, step: int) -> None:
        """Move each teacher towards its student, as Algorithm 1 does at t = step + 2."""
        kept = self._kept(step)
        buffers = self.settings.teacher_batch_norm == "running"
        for teacher, student in zip(self.teachers, self.students, strict=False):
            ema_update(teacher, unwrap(student), kept, buffers=buffers)

    def _unlabeled_lesson(self, unlabeled: PairedBatch) -> Lesson:
        """Ask the teachers about the weak views, the students about the mixed strong ones."""
        strong = unlabeled.strong
        size = (strong.shape[-2], strong.shape[-1])
        taught = unlabeled.shown(padding=self.settings.count_padding)
        known = torch.where(taught, 0, IGNORE).to(torch.uint8)
        with self._teaching():
            guides = self._ask(self.teachers, unlabeled.weak)
        clean = []
        if self.settings.student_labels == "clean":
            with torch.no_grad():
                clean = [logits for logits, _ in self._ask(self.students, unlabeled.weak)]
        if self.settings.cutmix:
            said, label = [logits for logits, _ in guides] + clean, known
            if self.settings.mixing == "classes":
                label = pseudo_label(torch.stack(said).mean(0), size).label
                label = label.masked_fill(known == IGNORE, IGNORE)
            mixing = draw_mixing(self.settings.mixing, label, self.num_classes, preset="mkd")
            strong, known = mix(strong, mixing), mix(known, mixing)
            guides = [(mix(logits, mixing), mix(feature, mixing)) for logits, feature in guides]
            clean = [mix(logits, mixing) for logits in clean]
        with batch_norm_policy(nn.ModuleList(self.students), self.settings.student_batch_norm):
            students = self._ask(self.students, strong)
        return Lesson(students=students, teachers=guides, known=known, labeled=False, clean=clean)

    def _teach(self, lessons: list[Lesson], step: int) -> dict[str, Tensor]:
        """Return alpha L_st + beta L_ss, each term a mean over the pixels of all lessons."""
        settings = self.settings
        effects: list[Effect] = []
        opinions = [self._opinions(lesson, step, effects) for lesson in lessons]
        logits, labels = (
            [torch.cat(part) for part in zip(*parts, strict=True)]
            for parts in zip(*opinions, strict=True)
        )
        students, of_students, of_teachers = logits[:2], labels[:2], labels[2:]
        by_student = self._loss(students, of_students[::-1])
        by_teacher = torch.zeros_like(by_student)
        if of_teachers:
            crossed = settings.teachers == "mutual"
            by_teacher = self._loss(students, of_teachers[::-1] if crossed else of_teachers)
        loss = self._trust(step) * (settings.alpha * by_teacher + settings.beta * by_student)
        means = [torch.stack(values).mean() for values in zip(*effects, strict=True)]
        shown = dict(zip(Effect._fields, means, strict=False))
        return {"loss": loss, "by_teacher": by_teacher, "by_student": by_student, **shown}

    def concerns(self, means: Mapping[str, float]) -> dict[str, str]:
        """Warn of a feature augmentation that overrides what the networks say."""
        return shift_concern(means, self.stages[-1].name)

    def _opinions(
        self, lesson: Lesson, step: int, effects: list[Effect]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits after FD and labels of students, then teachers, at the loss stride; add
        what FD did to `effects`."""
        size = (lesson.known.shape[-2], lesson.known.shape[-1])
        all_logits, labels = [], []
        views = zip_longest(lesson.students + lesson.teachers, self.augmentations)
        for number, (view, augmentation) in enumerate(views):
            logits, feature = view
            if augmentation is not None:
                progress = step / self.settings.num_steps
                strength = self.moved.get("strength", augmentation.strength_at(progress))
                own = own_labels(logits, lesson.known)
                label = lesson.known if lesson.labeled else own
                weight = self.classifiers[number].weight
                logits, table = augmentation(logits, feature, label, weight, strength)
                effects.append(augmentation.effect(view[0], logits, own != IGNORE, table))
            logits = at_stride(logits, size, self.settings.loss_stride)
            said = logits
            if number < len(lesson.clean):
                said = at_stride(lesson.clean[number], size, self.settings.loss_stride)
            label = own_labels(said, lesson.known)
            if number >= 2 and self.settings.threshold is not None:
                plain = at_stride(view[0], size, self.settings.loss_stride).float()
                sure = self._sure(label, plain.softmax(1).amax(1))
                label = label.masked_fill(sure < self.settings.threshold, IGNORE)
            all_logits.append(logits)
            labels.append(label)
        return all_logits, labels

    def _sure(self, label: Tensor, confidence: Tensor) -> Tensor:
        """Return what is held against the threshold: confidences, perhaps relative to the class."""
        if self.thresholds is None:
            return confidence
        self.thresholds.update(label, confidence, label != IGNORE)
        return self.thresholds.relative(label, confidence)

    def _loss(self, logits: list[Tensor], labels: list[Tensor]) -> Tensor:
        """Sum over the students the mean cross-entropy over the kept pixels of all ranks."""
        pairs = zip(logits, labels, strict=True)
        return torch.stack([mean_cross_entropy(z, y, self.runtime) for z, y in pairs]).sum()

    def _label_loss(self, logits: list[Tensor], mask: Tensor) -> Tensor:
        """Sum over the students their losses of the labeled pixels of all ranks."""
        losses = [label_loss(z, mask, self.settings, self.runtime) for z in logits]
        return torch.stack(losses).sum()

    @contextmanager
    def _teaching(self) -> Iterator[None]:
        """Be the context of the teachers' passes: no gradient, their batch-norm statistics."""
        policy = self.settings.teacher_batch_norm
        with torch.no_grad(), batch_norm_policy(nn.ModuleList(self.teachers), policy):
            yield

    @staticmethod
    def _ask(networks: list[nn.Module], image: Tensor) -> list[View]:
        return [network(image, return_feature=True) for network in networks]
