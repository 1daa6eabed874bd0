"""Supervised training: the baseline every method is compared with.

each step:  x, y <- labeled batch (a share of it perturbed, if asked)
            L    <- mean over labeled pixels of CE(h(x), y)
            step of the optimizer on L
"""

from dataclasses import dataclass, field

from torch import Tensor

from ...pipelines.settings import StrongSettings
from ..engine.runtime import Runtime
from ..engine.settings import RunSettings
from ..engine.stages import Method, Stage
from ..engine.streams import Batches, StreamSpec
from .losses import supervised_loss
from .registry import method


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

    def strong_view(self) -> StrongSettings:
        """Return the augmentation."""
        return self.augmentation


@method("supervised", SupervisedSettings)
class Supervised(Method):
    """Cross-entropy on labeled pixels."""

    def __init__(self, settings: SupervisedSettings, runtime: Runtime, num_classes: int) -> None:
        self.runtime = runtime
        self.student = runtime.train_network(settings.network, num_classes)
        self.networks = {"student": self.student}
        self.optimized = {"student": ("student",)}
        self.evaluated = "student"
        self.streams = {
            "labeled": StreamSpec(
                kind="labeled",
                subset="labeled",
                batch_size=settings.batch_size,
                strong=settings.augmentation if settings.augmentation.view != "none" else None,
                strong_share=settings.augmentation_share,
            )
        }
        self.stages = (Stage(name="supervised", loss=self.supervised, optimizer="student"),)

    def supervised(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Mean cross-entropy over the labeled pixels of all ranks."""
        return {"loss": supervised_loss(self.student, batches["labeled"], self.runtime)}
