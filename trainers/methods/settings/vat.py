"""Settings of virtual adversarial training."""

from dataclasses import dataclass
from typing import Literal

from ...engine.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class VatSettings(RunSettings):
    """Robustness against the perturbation that changes the prediction most."""

    unlabeled_batch_size: int = 8
    """unlabeled images of a step on each rank"""
    unlabeled: Literal["all", "unlabeled"] = "all"
    """all: the unlabeled stream also carries the labeled images, without masks"""
    power: Literal["hessian", "difference"] = "hessian"
    """how the power iteration multiplies by the Hessian: exactly, or by a step of length xi"""
    xi: float = 1e-6
    """length of the step of power difference"""
    epsilon: float = 10.0
    """length of the perturbation of an image, in units of the network's input"""
    power_iterations: int = 1
    """passes that look for the worst direction"""
    alpha: float = 1.0
    """weight of the adversarial divergence"""
    beta: float = 1.0
    """weight of the entropy; 0 is VAT alone"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("unlabeled_batch_size", "power_iterations"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be at least 1; got {getattr(self, name)}")
        for name in ("xi", "epsilon"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name} must be above 0; got {getattr(self, name)}")
        for name in ("alpha", "beta"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must be >= 0; got {getattr(self, name)}")
