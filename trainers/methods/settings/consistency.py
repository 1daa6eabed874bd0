"""Settings of consistency with PhTPS; what they mean stands in methods/consistency.py."""

from dataclasses import dataclass, field
from typing import Any, Literal

from ....pipelines.settings import StrongSettings
from ...engine.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class ConsistencySettings(RunSettings):
    """Consistency of predictions under perturbation; by default one way, with a clean teacher."""

    variant: Literal["1w-ct", "1w-cs", "2w-c1", "1w-p2"] = "1w-ct"
    """1w-ct: clean teacher; 1w-cs: clean student; 2w-c1: gradients both ways, one input clean;
    1w-p2: both inputs perturbed"""
    direction: Literal["code", "text"] = "code"
    """D of 1w-cs and 2w-c1: code, from the perturbed prediction to the clean one, as in the
    released code; text, from the clean one to the perturbed one"""
    strong: StrongSettings = field(default_factory=StrongSettings)
    """the perturbation of the unlabeled images"""
    cutmix: bool = False
    """also swap a box of half the area within pairs of perturbed images, and of their targets"""
    mixing: Literal["boxes", "classes"] = "boxes"
    """what is mixed by CutMix: boxes, or half of the classes that a clean teacher sees in an image,
    on top of the next one (ClassMix)"""
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
    divergence: Literal["kl", "squared_l2"] = "kl"
    """D: the Kullback-Leibler divergence (Eq. 5), or the squared distance of the distributions"""
    target: Literal["soft", "hard"] = "soft"
    """the target's distribution as it is, or one-hot (Table 7 has MT-CutMix~ with hard targets)"""
    threshold: float | None = None
    """least confidence of a target; pixels below it count as 0 in the mean (MT-CutMix~: 0.97)"""
    blend: Literal["probabilities", "logits"] = "probabilities"
    """what of the target is warped; the released code warps logits"""
    kl_mean: Literal["pooled", "per_image"] = "pooled"
    """mean of the divergence over all valid pixels of the batch, or per image first (Eq. 4)"""
    teacher_batch_norm: Literal["batch", "batch_frozen", "running"] = "batch"
    """statistics of the teacher's pass: batch, those of the unlabeled images, which also move the
    running ones where the images are clean, as in the released code of the simple form;
    batch_frozen does not move them; running, the paper's text: where the unlabeled images hold a
    scene that no mask shows, it may collapse there"""
    student_batch_norm: Literal["batch_frozen", "batch", "running"] = "batch_frozen"
    """statistics of a student's perturbed pass; batch also moves the running ones (full-resolution
    Cityscapes)"""

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
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise ValueError(f"--threshold must lie in [0, 1); got {self.threshold}")
        if self.variant == "2w-c1" and self.mean_teacher:
            raise ValueError("--variant 2w-c1 has no teacher; use it with --no-mean-teacher")
        if self.variant == "1w-p2" and (self.cutmix or self.strong.view == "colour"):
            raise ValueError(
                "--variant 1w-p2 perturbs both inputs by PhTPS; use it with --no-cutmix and "
                "another --strong.view than colour"
            )
        if self.cutmix and (self.unlabeled_batch_size < 2 or self.kl_mean == "per_image"):
            raise ValueError(
                "--cutmix mixes images of one batch: it needs --unlabeled-batch-size 2 or more and "
                "--kl-mean pooled"
            )

        if self.mixing == "classes" and (
            not self.cutmix or self.variant != "1w-ct" or self.strong.warped
        ):
            raise ValueError(
                "--mixing classes goes with --cutmix, --variant 1w-ct and a --strong.view that "
                "does not warp (ph, colour, none): its masks are of the clean teacher's labels"
            )

    @classmethod
    def of_older(cls, plain: dict[str, Any]) -> dict[str, Any]:
        """Runs older than `direction` had that of the text."""
        if plain.get("variant") in ("1w-cs", "2w-c1"):
            return {"direction": "text", **plain}
        return plain

    @property
    def thresholded(self) -> bool:
        """Whether confidences of clean views are held against a threshold, one by one."""
        clean = self.variant == "1w-ct" or (self.variant != "1w-p2" and self.direction == "text")
        return self.threshold is not None and clean and self.kl_mean == "pooled"

    def encoded_fault(self) -> str:
        """Say that CutMix is of images."""
        if self.cutmix:
            return (
                "features of images are not those of mixed images: add --no-cutmix, or train live"
            )
        return ""

    def strong_view(self) -> StrongSettings:
        """Return the perturbation of the unlabeled images."""
        return self.strong
