"""Settings of DMT's phases."""

from dataclasses import dataclass
from typing import Literal

from ...engine.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class DmtSettings(RunSettings):
    """A network that learns from masks and from another network's pseudo-labels."""

    labels: str = ""
    """folder of pseudo-labels that `warpseg pseudo-label` made"""
    batch_size: int = 1
    """labeled images of a step on each rank"""
    unlabeled_batch_size: int = 7
    """pseudo-labeled images of a step on each rank"""
    form: Literal["dynamic", "naive", "flip", "online", "plain"] = "dynamic"
    """dynamic: Eq. 6; naive: gamma1 in all its cases; flip: where the network is surer, its own
    label; online: its own labels of a confidence of `threshold`, without a labels folder; plain:
    all weigh 1 (CBST)"""
    gamma1: float = 5.0
    """exponent of the weight where both agree"""
    gamma2: float = 5.0
    """exponent of the weight where the pseudo-label is the surer one"""
    threshold: float = 0.9
    """online: least confidence of a label"""
    augment_unlabeled: bool = True
    """online: scale and flip the unlabeled images as the labeled ones; without, they are crops at
    the image's own size"""
    normalizer: Literal["joint", "separate"] = "joint"
    """joint: one mean over the kept pixels of the whole batch, as in the released code; separate:
    a mean over the pseudo-labeled pixels plus a mean over the labeled ones"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unlabeled_batch_size < 1:
            raise ValueError(
                f"--unlabeled-batch-size must be at least 1; got {self.unlabeled_batch_size}"
            )
        for name in ("gamma1", "gamma2"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must be 0 or more; got {getattr(self, name)}")
        if not self.augment_unlabeled and self.form != "online":
            raise ValueError(
                "--no-augment-unlabeled is for --form online: other forms have pseudo-labels of "
                f"whole images; got --form {self.form}"
            )
        if self.rare.focal and self.normalizer == "joint":
            raise ValueError(
                "--rare.focal is for a loss of labeled pixels of their own: say --normalizer "
                "separate"
            )
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"--threshold must lie in [0, 1]; got {self.threshold}")
