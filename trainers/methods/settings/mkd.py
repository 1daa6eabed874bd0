"""Settings of MKD."""

from dataclasses import dataclass, field
from typing import Literal

from ....pipelines.settings import StrongSettings
from ...engine.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class MkdSettings(RunSettings):
    """Two students, each taught by the other and by the other's moving average."""

    strong: StrongSettings = field(default_factory=lambda: StrongSettings(view="mkd"))
    """the perturbation of the students' unlabeled input, before CutMix"""
    weak_photometric: bool = False
    """distort the colours of labeled images and of the teachers' input, as in the released code"""
    unlabeled_batch_size: int = 4
    """unlabeled images of a step on each rank; CutMix needs at least 2"""
    cutmix: bool = True
    """mix the strong views, and the teachers' outputs, by three boxes"""
    mixing: Literal["boxes", "classes"] = "boxes"
    """what is mixed by CutMix: boxes, or half of the classes of an image, on top of the next one
    (ClassMix), as the teachers, or students that label clean images, see them"""
    teachers: Literal["mutual", "own", "none"] = "mutual"
    """mutual: each teacher teaches the other's student; own: its own; none: CPS alone"""
    alpha: float = 1.5
    """weight of the teachers' labels (L_st)"""
    beta: float = 1.0
    """weight of the other student's labels (L_ss)"""
    rampup_steps: int = 0
    """steps over which alpha and beta grow from 0; the paper, which starts from ImageNet weights,
    has none"""
    gamma: float = 0.4
    """most of the old teacher that a step keeps; the released code has 0.6"""
    threshold: float | None = None
    """least probability of a teacher's label; 0.95 in the paper's starred rows"""
    feature_strength: float = 1.5
    """greatest strength of the feature augmentation (lambda); 0 switches it off"""
    feature_ramp: Literal["half_cosine", "linear"] = "half_cosine"
    """how its strength grows from 0 over the run"""
    feature_on: Literal["students", "all"] = "students"
    """all: the teachers' logits are shifted as well, as in the released code"""
    consistency_on: Literal["unlabeled", "both"] = "unlabeled"
    """both: the labels of networks also teach on labeled images, as in the released code"""
    teacher_batch_norm: Literal["batch", "running"] = "batch"
    """statistics of the teachers' passes; running ones are averages of the students'"""
    student_batch_norm: Literal["batch", "batch_frozen"] = "batch"
    """statistics of the students' passes on strong views; batch_frozen keeps them out of the
    running ones, which then know clean images alone, as those that are scored"""
    student_labels: Literal["mixed", "clean"] = "mixed"
    """what students label for each other: the mixed strong view that they learn; clean: the weak
    views, in passes of their own without gradient that move the statistics, mixed afterwards (CPS
    with CutMix)"""
    loss_stride: int = 8
    """pixels between the logits at which networks teach each other"""
    count_padding: bool = False
    """also teach where a crop shows no image, as in the released code"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unlabeled_batch_size < (2 if self.cutmix else 1):
            raise ValueError(
                "--unlabeled-batch-size must be at least 2 for CutMix; "
                f"got {self.unlabeled_batch_size}"
            )
        if self.mixing == "classes" and self.teachers == "none" and self.student_labels == "mixed":
            raise ValueError(
                "--mixing classes needs labels of clean images: choose --student-labels clean or "
                "another --teachers than none"
            )
        for name in ("alpha", "beta", "rampup_steps", "feature_strength"):
            if getattr(self, name) < 0:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be >= 0; got {getattr(self, name)}")
        for name in ("gamma", "threshold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"--{name} must lie in [0, 1]; got {value}")
        if self.strong.warped:
            raise ValueError(
                f"--strong.view {self.strong.view} warps the image, but not the teachers' labels; "
                "choose mkd, colour, sda, ph, channels or none"
            )
        if self.loss_stride < 1:
            raise ValueError(f"--loss-stride must be at least 1; got {self.loss_stride}")

    @property
    def thresholded(self) -> bool:
        """Whether confidences are held against a threshold."""
        return self.threshold is not None

    def strong_view(self) -> StrongSettings:
        """Return the perturbation of the students' unlabeled input."""
        return self.strong
