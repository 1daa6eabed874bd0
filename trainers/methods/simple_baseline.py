"""SimpleBaseline: self-training with strong augmentation (Yuan et al., "A simple baseline for
semi-supervised semantic segmentation with strong data augmentation", Algorithm 1).

    h <- supervised training on the labeled images                              the teacher
    each round:  v    <- argmax of h on the unlabeled images, at five scales, mirrored too
                 each step:  x, y <- labeled batch, weak views
                             u, v <- pseudo-labeled batch, u strongly augmented (SDA)
                             p, q <- h([x, u]); batch norms know x from u (DSBN)
                             L    <- CE(p, y) + SCL(q, v)
                             step of the optimizer on L
                 the student h, by the statistics of x alone, is the next round's teacher

Tables 2 and 3 are settings: `batch_norm`, `strong_on`, `train_on`. In the released code the batch
norm goes by the strength of the view and the loss by the origin of the label, and weak and strong
views are made of labeled and unlabeled images alike: `strong_on both`, `strong_share 0.5`,
`dsbn_by strength`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ... import IGNORE
from ...kernels import self_correction
from ...kernels.losses.self_correction import LOG_ZERO
from ...models import batch_norm_policy, convert_dsbn, dsbn_branch
from ...pipelines.batches import LabeledBatch
from ...pipelines.settings import StrongSettings
from ...pipelines.streams.labeled import strong_rows
from ..engine.protocol import EvaluationSettings
from ..engine.runtime import Runtime
from ..engine.settings import RunSettings
from ..engine.stages import Method, Stage
from ..engine.streams import Batches, StreamSpec
from ..labels.labeling import LabelingSettings
from .losses import mean_cross_entropy
from .rounds import SEEDS, LabelPart, Part, RoundsSettings, TrainPart
from .supervised import SupervisedSettings

SCALES = (0.5, 0.75, 1.0, 1.5, 1.75)
"""Scales at which the teacher labels."""
STREAMS = {"both": ("labeled", "pseudo"), "labeled": ("labeled",), "pseudo": ("pseudo",)}
STRONG = {"both": ("labeled", "pseudo"), "labeled": ("labeled",), "unlabeled": ("pseudo",)}
CONSTANT_WEIGHTS = {"sce": 0.5, "ce": 1.0}
"""Weight of the cross-entropy in the losses in which it is constant."""


@dataclass(frozen=True, kw_only=True)
class SimpleBaselineSettings(RunSettings):
    """One student, taught by masks and by pseudo-labels."""

    labels: str = ""
    """folder of pseudo-labels that `warpseg pseudo-label` made"""
    strong: StrongSettings = field(default_factory=lambda: StrongSettings(view="sda"))
    """the strong augmentation"""
    strong_on: Literal["none", "labeled", "unlabeled", "both"] = "unlabeled"
    """the images that are strongly augmented (Table 3)"""
    strong_share: float = 1.0
    """share of those that are"""
    unlabeled_batch_size: int = 8
    """pseudo-labeled images of a step on each rank"""
    train_on: Literal["both", "labeled", "pseudo"] = "both"
    """masks and pseudo-labels, or one of them alone (Table 3)"""
    batch_norm: Literal["dsbn", "trainable", "fixed"] = "dsbn"
    """dsbn: statistics of their own for pseudo-labeled images, which evaluation does without;
    trainable: one batch norm for all; fixed: the teacher's running statistics (the paper's Table 2
    fixes those of the ImageNet weights)"""
    dsbn_by: Literal["origin", "strength"] = "origin"
    """what has its own statistics: pseudo-labeled images, or strongly augmented ones"""
    shared_affine: bool = False
    """dsbn: both branches train one scale and shift"""
    correction: Literal["scl", "reversed", "sce", "ce"] = "scl"
    """loss of pseudo-labels: scl weighs cross-entropy against its reverse by confidence; reversed
    is that of the released code; sce weighs both by half; ce is plain cross-entropy"""
    log_zero: float = LOG_ZERO
    """the number A that stands for log 0 in the reverse cross-entropy"""
    normalizer: Literal["kept", "all"] = "kept"
    """pixels over which the loss of pseudo-labels is a mean; all counts ignored ones as well"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unlabeled_batch_size < 1:
            raise ValueError(
                f"--unlabeled-batch-size must be at least 1; got {self.unlabeled_batch_size}"
            )
        if not 0 < self.strong_share <= 1:
            raise ValueError(
                f"--strong-share must be above 0 and at most 1; got {self.strong_share}"
            )
        if self.log_zero >= 0:
            raise ValueError(
                f"--log-zero stands for log 0 and must be negative; got {self.log_zero}"
            )

    def strong_view(self) -> StrongSettings:
        """Return the strong augmentation."""
        return self.strong

    def streams(self) -> dict[str, StreamSpec]:
        """Return the streams that the student is trained on: labeled first.

        Raises ValueError where pseudo-labels are wanted, but none are named.
        """
        names = STREAMS[self.train_on]
        if "pseudo" in names and not self.labels:
            raise ValueError(
                "training on pseudo-labels needs --labels FOLDER, made by warpseg pseudo-label; a "
                "simple-baseline recipe without -student makes them itself"
            )
        specs = {
            "labeled": partial(StreamSpec, subset="labeled", batch_size=self.batch_size),
            "pseudo": partial(
                StreamSpec,
                subset="unlabeled",
                batch_size=self.unlabeled_batch_size,
                pseudo=Path(self.labels),
            ),
        }
        strong = STRONG.get(self.strong_on, ())
        return {
            name: specs[name](
                kind="labeled",
                strong=self.strong if name in strong else None,
                strong_share=self.strong_share,
            )
            for name in names
        }


class SimpleBaseline(Method):
    """Cross-entropy on masks and self-correction on pseudo-labels, in one pass."""

    joins_batches = True

    def __init__(
        self, settings: SimpleBaselineSettings, runtime: Runtime, num_classes: int
    ) -> None:
        self.settings = settings
        self.runtime = runtime
        self.streams = settings.streams()
        self.sizes = [spec.batch_size for spec in self.streams.values()]
        self.branches, self.order, change = (0, 0), None, None
        if settings.batch_norm == "dsbn":
            main, aux = branch_rows(self.streams, settings.dsbn_by, runtime.rank)
            self.branches = (len(main), len(aux))
            if main + aux != sorted(main + aux):
                self.order = torch.tensor(main + aux, device=runtime.device)
            change = partial(convert_dsbn, shared_affine=settings.shared_affine)
        self.student = runtime.train_network(settings.network, num_classes, change=change)
        self.networks = {"student": self.student}
        self.optimized = {"student": ("student",)}
        self.evaluated = "student"
        self.stages = (Stage(name="joint", loss=self.joint, optimizer="student"),)

    def joint(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """CE(p, y) + SCL(q, v), each a mean over the kept pixels of all ranks."""
        taken: dict[str, LabeledBatch] = {name: batches[name] for name in self.streams}
        logits = self._ask(torch.cat([batch.image for batch in taken.values()]))
        parts = dict(zip(taken, logits.split(self.sizes), strict=True))
        terms = {}
        if "labeled" in parts:
            terms["labeled"] = mean_cross_entropy(
                parts["labeled"], taken["labeled"].mask, self.runtime
            )
        if "pseudo" in parts:
            terms["pseudo"] = self._correct(parts["pseudo"], taken["pseudo"].mask)
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def _correct(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the self-correction loss of pseudo-labels (SCL), or what is to replace it."""
        settings = self.settings
        kept = (label != IGNORE) | (settings.normalizer == "all")
        return self_correction(
            logits,
            label,
            log_zero=settings.log_zero,
            weight=CONSTANT_WEIGHTS.get(settings.correction),
            reversed=settings.correction == "reversed",
            denominator=self.runtime.average(kept.sum()),
        )

    def _ask(self, image: Tensor) -> Tensor:
        """Return the student's logits of the joint batch, batch norms as the settings say."""
        if self.settings.batch_norm == "fixed":
            with batch_norm_policy(self.student, "running"):
                return self.student(image)
        if self.settings.batch_norm == "trainable":
            return self.student(image)
        with dsbn_branch(self.student, self.branches):
            if self.order is None:
                return self.student(image)
            # The rows of the main branch first, whatever their order, and the logits as they were.
            ordered = image[self.order].contiguous(memory_format=torch.channels_last)
            return self.student(ordered)[self.order.argsort()]


def branch_rows(
    streams: Mapping[str, StreamSpec], by: str, rank: int
) -> tuple[list[int], list[int]]:
    """Return which rows of the joint batch pass the main branch of DSBN, and which the other.

    by: "origin", pseudo-labeled images pass the other one, or "strength", augmented ones do. Raises
    ValueError where a branch would stay empty.
    """
    rows: tuple[list[int], list[int]] = ([], [])
    for name, spec in streams.items():
        share = float(name == "pseudo")
        if by == "strength":
            share = spec.strong_share if spec.strong is not None else 0.0
        second = strong_rows(spec.batch_size, rank, share)
        first = len(rows[0]) + len(rows[1])
        for row in range(spec.batch_size):
            rows[row in second].append(first + row)
    if not all(rows):
        raise ValueError(
            "--batch-norm dsbn needs images for both of its branches in every batch; choose "
            "trainable, or --dsbn-by strength with a --strong-share between 0 and 1"
        )
    return rows


@dataclass(frozen=True, kw_only=True)
class SimpleBaselineRounds(RoundsSettings):
    """A teacher from masks alone, then rounds of labeling and a student that starts from it."""

    teacher: SupervisedSettings = field(default_factory=SupervisedSettings)
    """the training on masks alone"""
    student: SimpleBaselineSettings = field(default_factory=SimpleBaselineSettings)
    """the training of each round; its own network settings give way to the teacher's"""
    labeling: LabelingSettings = field(
        default_factory=lambda: LabelingSettings(
            evaluation=EvaluationSettings(scales=SCALES, flip=True)
        )
    )
    """how the teacher labels: all labels are kept"""
    rounds: int = 3
    """labelings, each followed by a student; the paper does not say how many"""

    def __post_init__(self) -> None:
        if not 0 < self.rounds < SEEDS:
            raise ValueError(f"--rounds must be at least 1 and below {SEEDS}; got {self.rounds}")

    @property
    def candidates(self) -> tuple[str, ...]:
        """The students of all rounds, which `select` chooses among."""
        return tuple(f"student-{number}" for number in range(1, self.rounds + 1))

    def plan(self) -> tuple[Part, ...]:
        """Return teacher, labels-1, student-1, labels-2, student-2, ..."""
        parts: list[Part] = [TrainPart(name="teacher", settings=self.seeded(self.teacher, 0))]
        student = replace(self.student, network=self.teacher.network)
        source = "teacher"
        for number in range(1, self.rounds + 1):
            labels, name = f"labels-{number}", f"student-{number}"
            parts.append(LabelPart(name=labels, source=source, settings=self.labeling))
            own = self.seeded(student, number)
            parts.append(TrainPart(name=name, settings=own, start=source, labels=labels))
            source = name
        return tuple(parts)
