"""Entropy minimisation (Grandvalet and Bengio, 2004): be sure of unlabeled images, too.

warpseg train entropy-synthetic --plugin docs/examples/method.py --data DATA --split NAME --out RUN
"""

from dataclasses import dataclass, fields

from warpseg.pipelines.settings import StrongSettings
from warpseg.trainers.engine import Method, RunSettings, Stage, StreamSpec
from warpseg.trainers.methods.registry import method
from warpseg.trainers.methods.shared.losses import mean_entropy, supervised_loss
from warpseg.trainers.recipes.registry import RECIPES, find_recipe


@dataclass(frozen=True, kw_only=True)
class EntropySettings(RunSettings):
    """Cross-entropy on masks, and the entropy of predictions without masks."""

    unlabeled_batch_size: int = 8
    """unlabeled images of a step on each rank"""
    weight: float = 0.1
    """weight of the entropy"""


@method("entropy", EntropySettings)
class Entropy(Method):
    """L = CE(h(x), y) + weight * H(h(x_u)), one backward pass each, one step."""

    def __init__(self, settings, runtime, num_classes):
        self.settings, self.runtime = settings, runtime
        self.student = runtime.train_network(settings.network, num_classes)
        self.networks = {"student": self.student}
        self.optimized = {"student": ("student",)}
        self.evaluated = "student"
        n, plain = settings.unlabeled_batch_size, StrongSettings(view="none")
        self.streams = {
            "labeled": StreamSpec(kind="labeled", subset="labeled", batch_size=settings.batch_size),
            "unlabeled": StreamSpec(kind="paired", subset="unlabeled", batch_size=n, strong=plain),
        }
        last = Stage(name="entropy", loss=self.entropy, optimizer="student")
        self.stages = (Stage(name="supervised", loss=self.supervised), last)

    def supervised(self, batches, step):
        """Mean cross-entropy over the labeled pixels."""
        labeled = batches["labeled"]
        return {"loss": supervised_loss(self.student, labeled, self.settings, self.runtime)}

    def entropy(self, batches, step):
        """Mean entropy over the pixels of the crops that show an image."""
        views = batches["unlabeled"]
        entropy = mean_entropy(self.student(views.weak), views.valid, self.runtime)
        return {"loss": self.settings.weight * entropy, "entropy": entropy}


@RECIPES.register("entropy-synthetic")
def entropy_synthetic():
    """Return the recipe: what supervised training has on that data set."""
    base = find_recipe("supervised-synthetic-swiftnet18-tiny")
    return EntropySettings(**{f.name: getattr(base, f.name) for f in fields(RunSettings)})
