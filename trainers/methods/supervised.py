"""Supervised training: the baseline every method is compared with.

each step:  x, y <- labeled batch (a share of it perturbed, if asked)
            L    <- mean over labeled pixels of CE(h(x), y)
            step of the optimizer on L
"""

from collections.abc import Hashable

from torch import Tensor

from ..engine.runtime import Runtime
from ..engine.stages import Method, Stage
from ..engine.streams import Batches, StreamSpec
from .registry import method
from .settings.supervised import SupervisedSettings
from .shared.losses import supervised_loss


@method("supervised", SupervisedSettings)
class Supervised(Method):
    """Cross-entropy on labeled pixels."""

    def __init__(self, settings: SupervisedSettings, runtime: Runtime, num_classes: int) -> None:
        self.settings, self.runtime = settings, runtime
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

    def regime(self, step: int) -> Hashable:
        """Return what the stages take from the number of a step: nothing."""
        return ()

    def supervised(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Mean cross-entropy over the labeled pixels of all ranks."""
        return {
            "loss": supervised_loss(self.student, batches["labeled"], self.settings, self.runtime)
        }
