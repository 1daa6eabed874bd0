"""Settings of a link of DMT's chain of classifiers."""

from dataclasses import dataclass, field
from typing import Literal

from ....pipelines.settings import StrongSettings
from ...engine.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class DmtLinkSettings(RunSettings):
    """A classifier that learns from labels and, where given, from another's pseudo-labels."""

    labels: str = ""
    """folder of pseudo-labels that `warpseg pseudo-label` made; without one, the link F^0 that
    learns from true labels alone"""
    unlabeled_batch_size: int = 448
    """pseudo-labeled images of a step on each rank"""
    augmentation: StrongSettings = field(default_factory=lambda: StrongSettings(view="randaugment"))
    """what changes all images, labeled and pseudo-labeled"""
    form: Literal["dynamic", "naive", "plain"] = "dynamic"
    """dynamic: Eq. 6; naive: gamma1 in all its cases; plain: all weigh 1 (curriculum labeling)"""
    gamma1: float = 4.0
    """exponent of the weight where both agree, at the end of the run"""
    gamma2: float = 4.0
    """exponent of the weight where the pseudo-label is the surer one, at the end of the run"""
    mixup: float = 0.75
    """both parameters of mixup's Beta distribution; 0 mixes nothing"""
    ema_decay: float = 0.999
    """share of the reported network that a step keeps"""
    weight_batch_norm: Literal["batch_frozen", "batch"] = "batch_frozen"
    """statistics of the pass that gives the weights: those of the batch; batch also moves the
    running ones, as in the released code"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unlabeled_batch_size < 1:
            raise ValueError(
                f"--unlabeled-batch-size must be at least 1; got {self.unlabeled_batch_size}"
            )
        for name in ("gamma1", "gamma2", "mixup"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must be 0 or more; got {getattr(self, name)}")
        if not 0 <= self.ema_decay <= 1:
            raise ValueError(f"--ema-decay must lie in [0, 1]; got {self.ema_decay}")

    def strong_view(self) -> StrongSettings:
        """Return the augmentation."""
        return self.augmentation
