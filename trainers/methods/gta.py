"""GTA-Seg, semi-supervised segmentation via a gentle teaching assistant (Jin, Wang, Lin).

    each step:  x, y <- labeled batch       x_u <- unlabeled batch
                y_u, c <- labels and confidences of the teacher on x_u              no gradient
                x_u, y_u, c <- CutMix, one box of half the area, in half of the steps
                L_u <- mean over K of w CE(assistant(x_u), y_u)                          Eq. 7
                       w = c + 1, K: the 80 % most confident pixels                      Eq. 6
                step of the assistant's optimizer on mu L_u
                student's backbone <- moving average of the assistant's                      Eq. 9
                L_s <- mean of CE(student(x), y); step of the student's optimizer
                teacher <- moving average of the student                                    Eq. 12

So the student learns features from pseudo-labels but its decoder from true labels alone. Assistant
and student see labeled and unlabeled images in one batch, for common batch statistics. In the
warm-up the student alone learns, from labels, and is copied into the others once at its end. The
tables of ablations are settings: 4 and 7 by `assistant_on` and `student_on`, 5 by `transfer` and
`transmission`, 10 by `transfer`, 8 by the decays and `warmup_steps`, 9 by `reweighting` and
`smoothing`. Slips of the released code come by name: `--classifier shared`, and padding that counts
as class 0, `--geometry.padding-class 0` (pseudo-labels of padding count, too) and
`--evaluation.padding-class 0`.
"""

from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from ... import IGNORE
from ...kernels import (
    ema_update,
    mix,
    pseudo_label,
    quantile,
    reweight,
)
from ...models import SegmentationNetwork, batch_norm_policy
from ..engine.optimization import ScheduleSettings
from ..engine.runtime import Runtime, unwrap
from ..engine.stages import Method, Stage
from ..engine.streams import Batches, StreamSpec
from .registry import method
from .settings.gta import GtaSettings, Lessons
from .shared.class_thresholds import class_thresholds
from .shared.losses import label_loss, mean_cross_entropy, supervised_loss
from .shared.mixing import draw_mixing

_ONE_CLASS = 0.99
"""Share of one class among the kept pseudo-labels from which on the run warns."""


@method("gta", GtaSettings)
class Gta(Method):
    """The assistant's step, then the student's, then the teacher's."""

    joins_batches = True

    def __init__(self, settings: GtaSettings, runtime: Runtime, num_classes: int) -> None:
        self.settings = settings
        self.runtime = runtime
        self.num_classes = num_classes
        self.student = runtime.train_network(settings.network, num_classes)
        self.teacher = runtime.frozen_copy(self.student)
        self.networks: dict[str, nn.Module] = {"student": self.student, "teacher": self.teacher}
        self.optimized = {"student": ("student",)}
        self.evaluated = "teacher"
        self.also_evaluated: tuple[str, ...] = ("student",)
        student_stage = Stage(
            name="student",
            loss=self.teach_student,
            optimizer="student",
            after=self.update_teacher,
        )
        self.stages = (student_stage,)
        if settings.assistant_on != "nothing":
            self.assistant = runtime.train_network(settings.network, num_classes)
            unwrap(self.assistant).load_state_dict(unwrap(self.student).state_dict())
            self._share()
            self.networks["assistant"] = self.assistant
            self.optimized["assistant"] = ("assistant",)
            self.also_evaluated = ("student", "assistant")
            self.stages = (
                Stage(
                    name="assistant",
                    loss=self.teach_assistant,
                    optimizer="assistant",
                    after=self.transfer,
                ),
                student_stage,
            )
        self.thresholds = class_thresholds(settings, runtime, num_classes, self.networks)
        if settings.assistant_schedule == "constant":
            self.schedules = {"assistant": ScheduleSettings(name="constant")}
        self.streams = {
            "labeled": StreamSpec(kind="labeled", subset="labeled", batch_size=settings.batch_size),
            "unlabeled": StreamSpec(
                kind="paired", subset="unlabeled", batch_size=settings.unlabeled_batch_size
            ),
        }

    def regime(self, step: int) -> Hashable:
        """Return what the stages take from the number of a step: in the warm-up whether it ends,
        then the shares that moving averages keep."""
        return (self._phase(step), *self._kept(step))

    def _phase(self, step: int) -> str:
        warmup = self.settings.warmup_steps
        return "learns" if step >= warmup else "ends" if step == warmup - 1 else "warms up"

    def _kept(self, step: int) -> tuple[float, ...]:
        settings = self.settings
        if step < settings.warmup_steps:
            return ()
        return tuple(self._decay(step, d) for d in (settings.ema_decay, settings.assistant_decay))

    def teach_assistant(self, batches: Batches, step: int) -> dict[str, Tensor] | None:
        """Return what the assistant learns, by default the re-weighted pseudo-labels (Eq. 7)."""
        if step >= self.settings.warmup_steps:
            return self._lessons(self.assistant, self.settings.assistant_on, batches)
        if self.settings.warmup == "student":
            return None
        return self._supervised(self.assistant, batches)

    def teach_student(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Return what the student learns, by default the labels."""
        if step < self.settings.warmup_steps:
            return self._supervised(self.student, batches)
        return self._lessons(self.student, self.settings.student_on, batches)

    def transfer(self, step: int) -> None:
        """Move the transferred parts of the student towards the assistant's (Eq. 9)."""
        if step < self.settings.warmup_steps or self.settings.transmission == "shared":
            return
        decay = self._decay(step, self.settings.assistant_decay)
        student, assistant = self._transferred
        ema_update(student, assistant, decay)

    def update_teacher(self, step: int) -> None:
        """Move the teacher towards the student (Eq. 12); at the end of the warm-up, copy it."""
        settings, student = self.settings, unwrap(self.student)
        if step < settings.warmup_steps:
            if step == settings.warmup_steps - 1:
                self.teacher.load_state_dict(student.state_dict())
                if settings.assistant_on != "nothing" and settings.warmup == "student":
                    unwrap(self.assistant).load_state_dict(student.state_dict())
            return
        decay = self._decay(step, settings.ema_decay)
        ema_update(self.teacher, student, decay, buffers=settings.confidence == "clean")

    def _share(self) -> None:
        """Let shared parts of the assistant lie where the student's do; loading copies in place."""
        settings = self.settings
        shared = list(settings.transfer) if settings.transmission == "shared" else []
        if settings.classifier == "shared":
            shared.append("classifier")
        theirs, own = (_cuts(network) for network in (self.student, self.assistant))
        for cut in shared:
            for name, parameter in own[cut].items():
                parameter.data = theirs[cut][name].data

    def _decay(self, step: int, decay: float) -> float:
        """Let the average follow its source closely in the first steps after the warm-up."""
        return min(1 - 1 / (step - self.settings.warmup_steps + 1), decay)

    @cached_property
    def _transferred(self) -> list[list[Tensor]]:
        """The student's transferred parameters, and the assistant's; listed once, for to walk all
        modules takes milliseconds."""
        both = (_cuts(network) for network in (self.student, self.assistant))
        return [[v for cut in self.settings.transfer for v in cuts[cut].values()] for cuts in both]

    def _supervised(self, network: nn.Module, batches: Batches) -> dict[str, Tensor]:
        labeled = batches["labeled"]
        return {"loss": supervised_loss(network, labeled, self.settings, self.runtime)}

    def _lessons(self, network: nn.Module, on: Lessons, batches: Batches) -> dict[str, Tensor]:
        """Return the losses of one pass over labeled and mixed unlabeled images together."""
        labeled = batches["labeled"]
        mixed, label, confidence = self._mixed(batches)
        logits = network(torch.cat((labeled.image, mixed)))
        count = len(labeled.image)
        # Parts of one split get their gradients joined, not each spread over zeros.
        first, second = (
            logits.split((count, len(mixed))) if on == "both" else (logits[:count], logits[count:])
        )
        terms: dict[str, Tensor] = {}
        if on in ("labeled", "both"):
            terms["labeled"] = label_loss(first, labeled.mask, self.settings, self.runtime)
        shares: dict[str, Tensor] = {}
        if on in ("pseudo", "both"):
            terms["pseudo"], kept = self._pseudo_loss(second, label, confidence)
            shares = kept_shares(kept, label, logits.shape[1])
        weights = {"labeled": 1.0, "pseudo": self.settings.mu}
        parts = [
            value if weights[name] == 1 else weights[name] * value for name, value in terms.items()
        ]
        loss = parts[0] + parts[1] if on == "both" else parts[0]
        return {"loss": loss, **terms, **shares}

    def concerns(self, means: Mapping[str, float]) -> dict[str, str]:
        """Warn where no pseudo-label is kept, or nearly all kept ones are of one class."""
        found: dict[str, str] = {}
        for stage in self.stages:
            found |= kept_concern(means, stage.name)
        return found

    def _mixed(self, batches: Batches) -> tuple[Tensor, Tensor, Tensor]:
        """Return mixed images with the teacher's labels and confidences; made once a step."""
        if "mixed" not in batches:
            batches["mixed"] = self._label(batches)
        return batches["mixed"]

    @torch.no_grad()
    def _label(self, batches: Batches) -> tuple[Tensor, Tensor, Tensor]:
        settings, unlabeled = self.settings, batches["unlabeled"]
        image = unlabeled.weak
        size = (image.shape[-2], image.shape[-1])
        with batch_norm_policy(self.teacher, "running"):
            clean = pseudo_label(self.teacher(image), size)
        label = clean.label
        padding = settings.geometry.padding_class is not None
        if not padding or unlabeled.known is not None:
            label = label.masked_fill(~unlabeled.shown(padding=padding), IGNORE)
        if self.thresholds is not None:
            self.thresholds.update(label, clean.confidence, label != IGNORE)
        mixing = draw_mixing(
            settings.mixing,
            label,
            self.num_classes,
            preset="gta",
            probability=settings.cutmix_probability,
        )
        image, label = mix(image, mixing), mix(label, mixing)
        if settings.confidence == "clean":
            return image, label, mix(clean.confidence, mixing)
        labeled = batches["labeled"].image
        with batch_norm_policy(self.teacher, "batch"):
            logits = self.teacher(torch.cat((labeled, image)))[len(labeled) :]
        return image, label, pseudo_label(logits, size).confidence

    def _pseudo_loss(
        self, logits: Tensor, label: Tensor, confidence: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the loss on pseudo-labels (Eq. 7), 0-d, and the kept pixels (N, H, W)."""
        settings = self.settings
        known = label != IGNORE
        # The least confident pixel is at the quantile, not above it, even where none is dropped.
        sure = confidence
        if self.thresholds is not None:
            sure = self.thresholds.relative(label, confidence)
        threshold = quantile(sure, settings.drop, mask=known) if settings.drop else 0.0
        kept = known & (sure > threshold)
        if not settings.reweighting:
            plain = mean_cross_entropy(logits, label.masked_fill(~kept, IGNORE), self.runtime)
            return plain, kept
        normalizer: str | Tensor = settings.normalizer
        if self.runtime.world_size > 1 or self.thresholds is not None:
            total = ((confidence + settings.smoothing) * kept).sum()
            if settings.normalizer == "all":
                total = total + settings.smoothing * (known & ~kept).sum()
            normalizer = self.runtime.average(total)
        if self.thresholds is not None:
            label, threshold = label.masked_fill(~kept, IGNORE), 0.0
        loss = reweight(
            logits,
            label,
            confidence,
            threshold=threshold,
            normalizer=normalizer,
            smoothing=settings.smoothing,
        )
        return loss, kept


def kept_shares(kept: Tensor, label: Tensor, num_classes: int) -> dict[str, Tensor]:
    """Return what is logged of the kept pixels (N, H, W): `kept`, their share, 0-d, and `class`,
    the share of each class among them, (C,), by every fourth pixel in both directions."""
    some, counted = label[:, 2::4, 2::4], kept[:, 2::4, 2::4]
    classes = torch.arange(num_classes, device=label.device).view(-1, 1, 1, 1)
    counts = ((some == classes) & counted).sum((1, 2, 3))
    return {
        "kept": kept.mean(dtype=torch.float32),
        "class": counts / counts.sum().clamp(min=1),
    }


def kept_concern(means: Mapping[str, float], stage: str) -> dict[str, str]:
    """Return the warnings that the logged terms of a stage give reason to."""
    kept = means.get(f"{stage}/kept")
    if kept is None:
        return {}
    if kept == 0:
        return {"kept": f"the {stage} learns from no pseudo-label at all: none is kept (--drop)"}
    classes = {name: share for name, share in means.items() if name.startswith(f"{stage}/class:")}
    first = max(classes, key=lambda name: classes[name])
    if classes[first] < _ONE_CLASS:
        return {}
    return {
        "class": f"{classes[first]:.1%} of the pseudo-labels that the {stage} learns from are of "
        f"class {first.rpartition(':')[2]}: it learns little else; lower --drop, give it masks "
        "as well (--assistant-on both), or lengthen --warmup-steps"
    }


def _cuts(network: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    return cast(SegmentationNetwork, unwrap(network)).transfer_layers()
