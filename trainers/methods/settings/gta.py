"""Settings of GTA-Seg."""

from dataclasses import dataclass
from typing import Literal

from ...engine.settings import RunSettings

Cut = Literal["layer0", "layer1", "layer2", "layer3", "layer4", "decoder", "classifier"]
Lessons = Literal["pseudo", "labeled", "both", "nothing"]
BACKBONE: tuple[Cut, ...] = ("layer0", "layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True, kw_only=True)
class GtaSettings(RunSettings):
    """A student that learns labels itself and features from an assistant."""

    unlabeled_batch_size: int = 4
    """unlabeled images of a step on each rank"""
    assistant_on: Lessons = "pseudo"
    """what the assistant learns from; nothing: there is none (teacher and student alone)"""
    student_on: Lessons = "labeled"
    """what the student learns from"""
    transfer: tuple[Cut, ...] = BACKBONE
    """parts of the assistant that pass to the student: the stem is layer0 (Table 10)"""
    transmission: Literal["ema", "shared"] = "ema"
    """how they pass: ema, by a moving average; shared, they are the same weights in both, which
    both of them train, so that the assistant is a second head of one network (Unbiased ST of
    Table 5)"""
    assistant_decay: float = 0.99
    """share of the student's backbone that a step keeps (alpha)"""
    ema_decay: float = 0.99
    """share of the teacher that a step keeps (alpha)"""
    mu: float = 1.0
    """weight of the loss on pseudo-labels"""
    drop: float = 0.2
    """share of the least confident pixels of a batch that are left out"""
    reweighting: bool = True
    """weigh pixels by confidence"""
    smoothing: float = 1.0
    """what Laplace smoothing adds to a confidence (tau)"""
    normalizer: Literal["kept", "all"] = "kept"
    """mean over the weights of kept pixels; all: dropped pixels count too, as in the code"""
    mixing: Literal["boxes", "classes"] = "boxes"
    """what is mixed: boxes, or half of the classes that the teacher sees in an image, on top of the
    next one (ClassMix)"""
    cutmix_probability: float = 0.5
    """share of the steps that mix the unlabeled images"""
    confidence: Literal["clean", "mixed"] = "clean"
    """mixed: from another pass of the teacher, in training mode, over the mixed batch, which also
    makes its batch-norm statistics, as in the code; clean: from the pass that labels"""
    warmup_steps: int = 0
    """steps in which the student alone learns, from labels; the paper has one epoch"""
    warmup: Literal["student", "all"] = "student"
    """student: it is copied into teacher and assistant at the end; all: the assistant learns from
    labels as well, and the teacher alone is a copy"""
    classifier: Literal["own", "shared"] = "own"
    """shared: assistant and student have the same classifier, which both of them train, as by a
    slip of the released code"""
    assistant_schedule: Literal["same", "constant"] = "same"
    """constant: the assistant's learning rate does not fall, as in the released code"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("assistant_decay", "ema_decay", "cutmix_probability"):
            if not 0 <= getattr(self, name) <= 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must lie in [0, 1]; got {getattr(self, name)}")
        if not 0 <= self.drop < 1:
            raise ValueError(f"--drop must lie in [0, 1); got {self.drop}")
        for name in ("mu", "smoothing", "warmup_steps"):
            if getattr(self, name) < 0:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be >= 0; got {getattr(self, name)}")
        if self.student_on == "nothing":
            raise ValueError("--student-on nothing would train no student; choose labeled")
        if self.warmup_steps >= self.num_steps:
            raise ValueError(
                f"--warmup-steps must be less than --num-steps {self.num_steps}; "
                f"got {self.warmup_steps}"
            )
        for cut in self.transfer:
            if self.transfer.count(cut) > 1:
                raise ValueError(f"--transfer names {cut} twice; name each part once")
        if self.transmission == "shared" and (self.assistant_on == "nothing" or not self.transfer):
            raise ValueError(
                "--transmission shared is for parts that student and assistant have in common: "
                "name some by --transfer, and choose another --assistant-on than nothing"
            )
        if self.classifier == "shared" and (
            self.assistant_on == "nothing" or "classifier" in self.transfer
        ):
            raise ValueError(
                "--classifier shared is for an assistant whose classifier does not pass to the "
                "student: choose another --assistant-on than nothing, and leave classifier out of "
                "--transfer"
            )

    @property
    def thresholded(self) -> bool:
        """Whether confidences are held against a threshold."""
        return self.drop > 0
