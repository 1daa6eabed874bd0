"""Settings of SimpleBaseline's student."""

import math
from dataclasses import dataclass, field
from typing import Literal

from ....pipelines.settings import StrongSettings
from ...engine.settings import RunSettings

LOG_ZERO = math.log(1e-4)
"""That of `kernels.self_correction`, which cannot be asked for it without torch."""


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
    trainable: one batch norm for all; fixed: the running statistics of `fixed_statistics`"""
    fixed_statistics: str = "own"
    """fixed: own, those that the student starts with, the teacher's; pretrained, the backbone's are
    those of the weights that the first teacher started from, as in the paper's Table 2; or the
    weights themselves, imagenet or a file"""
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
        if self.fixed_statistics != "own" and self.batch_norm != "fixed":
            raise ValueError(
                f"--fixed-statistics {self.fixed_statistics} goes with --batch-norm fixed; got "
                f"--batch-norm {self.batch_norm}"
            )
        if self.log_zero >= 0:
            raise ValueError(
                f"--log-zero stands for log 0 and must be negative; got {self.log_zero}"
            )

    def strong_view(self) -> StrongSettings:
        """Return the strong augmentation."""
        return self.strong
