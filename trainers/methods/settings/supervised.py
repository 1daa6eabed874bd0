"""Settings of supervised training."""

from dataclasses import dataclass, field

from ....pipelines.settings import StrongSettings
from ...engine.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class SupervisedSettings(RunSettings):
    """Supervised training on the labeled images alone."""

    augmentation: StrongSettings = field(default_factory=lambda: StrongSettings(view="none"))
    """perturbation of a share of each batch ("PhTPS-aug" of the one-way paper: view phtps)"""
    augmentation_share: float = 0.5
    """share of each batch that is perturbed"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.augmentation_share <= 1:
            raise ValueError(
                f"--augmentation-share must lie in [0, 1]; got {self.augmentation_share}"
            )

    def encoded_fault(self) -> str:
        """Return nothing: all that is perturbed is perturbed when it is drawn."""
        return ""

    def strong_view(self) -> StrongSettings:
        """Return the augmentation."""
        return self.augmentation
