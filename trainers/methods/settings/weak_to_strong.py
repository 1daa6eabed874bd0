"""Settings that FixMatch, UniMatch and PrevMatch share."""

from dataclasses import dataclass, field
from typing import Literal

from ....pipelines.settings import StrongSettings
from ...engine.settings import RunSettings

Labels = Literal["teacher", "student", "running"]
"""Who labels weak views."""


@dataclass(frozen=True, kw_only=True)
class WeakToStrongSettings(RunSettings):
    """A network whose labels of weak views teach it strong ones."""

    strong: StrongSettings = field(default_factory=lambda: StrongSettings(view="colour"))
    """the strong views, before they are mixed"""
    unlabeled_batch_size: int = 4
    """unlabeled images of a step on each rank; mixing needs at least 2"""
    threshold: float = 0.95
    """least confidence of a label that teaches (tau); above 1 none does"""
    alpha: float = 1.0
    """weight of the losses of unlabeled images beside those of labeled ones (the codes have 1)"""
    mixing: Literal["boxes", "classes", "none"] = "boxes"
    """boxes: one box from the batch reversed; classes: half of the classes on top of the next image
    (ClassMix)"""
    mix_probability: float = 0.5
    """share of the images, of each view by itself, that get a box"""
    labeled_loss: Literal["mean", "hard"] = "mean"
    """hard: the mean over hard pixels alone (OHEM), as on Cityscapes"""
    hard_threshold: float = 0.7
    """greatest probability of the true class at a hard pixel"""
    hard_least: int = 200_000
    """hard pixels of a batch on each rank at least; where fewer are labeled, all count"""
    strong_batch_norm: Literal["batch", "batch_frozen"] = "batch"
    """statistics of the passes on strong views; batch_frozen keeps them out of the running ones,
    which then know weak and labeled images alone"""

    def __post_init__(self) -> None:
        super().__post_init__()
        least = 1 if self.mixing == "none" else 2
        if self.unlabeled_batch_size < least:
            raise ValueError(
                f"--unlabeled-batch-size must be at least {least} with --mixing {self.mixing}; "
                f"got {self.unlabeled_batch_size}"
            )
        for name in ("mix_probability", "hard_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must lie in [0, 1]; got {getattr(self, name)}")
        if not self.alpha >= 0:
            raise ValueError(f"--alpha must be >= 0; got {self.alpha}")
        if self.threshold < 0:
            raise ValueError(f"--threshold must be >= 0; got {self.threshold}")
        if self.hard_least < 1:
            raise ValueError(f"--hard-least must be at least 1; got {self.hard_least}")
        if self.strong.warped:
            raise ValueError(
                f"--strong.view {self.strong.view} warps the image, but not its labels; choose "
                "colour, mkd, ph, channels or none"
            )

    @property
    def thresholded(self) -> bool:
        """Whether confidences are held against a threshold."""
        return True

    def mixing_fault(self) -> str:
        """Say, for `encoded_fault`, that boxes and classes mix images."""
        if self.mixing == "none":
            return ""
        return (
            f"features of images are not those of mixed images, as --mixing {self.mixing} makes "
            "them: add --mixing none, or train live"
        )

    def strong_view(self) -> StrongSettings:
        """Return the perturbation of the strong views."""
        return self.strong
