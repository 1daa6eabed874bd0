"""SimpleBaseline's plan: a teacher from masks, then rounds of labeling and of a student."""

from dataclasses import dataclass, field, replace

from ..engine.protocol import EvaluationSettings
from ..labels.settings import LabelingSettings
from .registry import ROUNDS
from .rounds import SEEDS, LabelPart, Part, RoundsSettings, TrainPart
from .settings.simple_baseline import SimpleBaselineSettings
from .settings.supervised import SupervisedSettings

SCALES = (0.5, 0.75, 1.0, 1.5, 1.75)
"""Scales at which the teacher labels."""


@ROUNDS.register("simple-baseline-rounds")
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
        if self.student.fixed_statistics == "pretrained" and self.teacher.network.weights == "none":
            raise ValueError(
                "--student.fixed-statistics pretrained needs weights that the teacher starts from: "
                "name some with --teacher.network.weights, or choose own"
            )

    @property
    def candidates(self) -> tuple[str, ...]:
        """The students of all rounds, which `select` chooses among."""
        return tuple(f"student-{number}" for number in range(1, self.rounds + 1))

    def plan(self) -> tuple[Part, ...]:
        """Return teacher, labels-1, student-1, labels-2, student-2, ..."""
        parts: list[Part] = [TrainPart(name="teacher", settings=self.seeded(self.teacher, 0))]
        student = replace(self.student, network=self.teacher.network)
        if student.fixed_statistics == "pretrained":
            student = replace(student, fixed_statistics=self.teacher.network.weights)
        source = "teacher"
        for number in range(1, self.rounds + 1):
            labels, name = f"labels-{number}", f"student-{number}"
            parts.append(LabelPart(name=labels, source=source, settings=self.labeling))
            own = self.seeded(student, number)
            parts.append(TrainPart(name=name, settings=own, start=source, labels=labels))
            source = name
        return tuple(parts)
