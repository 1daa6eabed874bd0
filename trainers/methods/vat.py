"""Virtual adversarial training with entropy minimisation (Miyato et al., "Virtual adversarial
training: a regularization method for supervised and semi-supervised learning"), as the one-way
consistency paper compares with it (Table 6).

    each step:  x, y <- labeled batch                     x_u <- unlabeled batch
                L_s  <- mean of CE(h(x), y)
                p    <- h(x_u);  L_e <- mean entropy of p
                d    <- random direction per image, |d| = 1
                d    <- gradient by d of KL(p || h(x_u + xi d)), |d| = 1      power iteration
                r    <- epsilon d
                L_v  <- mean of KL(p || h(x_u + r))                           p takes no gradient
                step of the optimizer on L_s + alpha L_v + beta L_e

Passes on unlabeled images use batch statistics and keep none, as in the authors' code. The power
iteration runs in float32 at least. There, x_u + 1e-6 d rounds to x_u, and the difference is noise:
so by default its limit for small xi is taken instead, d <- H d with H the Hessian of the divergence
at x_u, by differentiating twice. It needs one forward pass as well.
"""

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from ...kernels import consistency_kl
from ...kernels.dispatch import kernels
from ...models.norm import batch_norm_policy
from ...pipelines.batches import PairedBatch
from ...pipelines.settings import StrongSettings
from ..engine.runtime import Runtime, unwrap
from ..engine.stages import Method, Stage
from ..engine.streams import Batches, StreamSpec
from .registry import method
from .settings.vat import VatSettings
from .shared.losses import mean_entropy, supervised_loss
from .shared.teaching import whole_image


@method("vat", VatSettings)
class Vat(Method):
    """Supervised cross-entropy, entropy, and divergence under the worst perturbation."""

    def __init__(self, settings: VatSettings, runtime: Runtime, num_classes: int) -> None:
        self.settings = settings
        self.runtime = runtime
        self.student = runtime.train_network(settings.network, num_classes)
        self.networks = {"student": self.student}
        self.optimized = {"student": ("student",)}
        self.evaluated = "student"
        self.streams = {
            "labeled": StreamSpec(kind="labeled", subset="labeled", batch_size=settings.batch_size),
            "unlabeled": StreamSpec(
                kind="paired",
                subset=settings.unlabeled,
                batch_size=settings.unlabeled_batch_size,
                strong=StrongSettings(view="none"),
            ),
        }
        self.stages = (
            Stage(name="supervised", loss=self.supervised),
            Stage(name="entropy", loss=self.entropy),
            Stage(name="adversarial", loss=self.adversarial, optimizer="student"),
        )

    def regime(self, step: int) -> Hashable:
        """Return what the stages take from the number of a step: nothing."""
        return ()

    def supervised(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Mean cross-entropy over the labeled pixels of all ranks (L_s)."""
        return {
            "loss": supervised_loss(self.student, batches["labeled"], self.settings, self.runtime)
        }

    def entropy(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Beta times the mean entropy on unlabeled images; leaves the prediction p behind."""
        views = batches["unlabeled"]
        with batch_norm_policy(self.student, "batch_frozen"):
            logits = self.student(views.weak)
        batches["prediction"] = logits.detach()
        valid = None if whole_image(logits) else views.valid
        value = mean_entropy(logits, valid, self.runtime)
        return {"loss": self.settings.beta * value, "entropy": value}

    def adversarial(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """Alpha times the mean divergence of h(x + r) from p."""
        views, prediction = batches["unlabeled"], batches["prediction"]
        change = self.settings.epsilon * self._worst_direction(views, prediction)
        with batch_norm_policy(self.student, "batch_frozen"):
            logits = self.student(views.weak + change.to(views.weak.dtype))
        value = self._divergence(logits, prediction, views)
        return {"loss": self.settings.alpha * value, "divergence": value}

    def _worst_direction(self, views: PairedBatch, prediction: Tensor) -> Tensor:
        """Return (N, 3, H, W), of length 1 per image, by power iteration."""
        image = views.weak.to(torch.promote_types(views.weak.dtype, torch.float32))
        direction = unit(torch.randn_like(image))
        network = unwrap(self.student)
        with (
            torch.autocast(image.device.type, enabled=False),
            batch_norm_policy(network, "batch_frozen"),
        ):
            for _ in range(self.settings.power_iterations):
                direction = unit(self._gradient(network, image, direction, prediction, views))
        return direction

    def _gradient(
        self,
        network: nn.Module,
        image: Tensor,
        direction: Tensor,
        prediction: Tensor,
        views: PairedBatch,
    ) -> Tensor:
        """Return the gradient of the divergence at x + xi d, or what it is for small xi: H d."""
        if self.settings.power == "difference":
            change = (self.settings.xi * direction).requires_grad_()
            value = self._divergence(network(image + change), prediction, views)
            return torch.autograd.grad(value, change)[0]
        change = torch.zeros_like(image).requires_grad_()
        # The Triton op has no second derivative, and neither has a compiled network.
        with kernels("reference"), self.runtime.speed.eagerly():
            logits = network(image + change)
            value = self._divergence(logits, logits.detach(), views)
            (slope,) = torch.autograd.grad(value, change, create_graph=True)
            return torch.autograd.grad(slope, change, direction)[0]

    def _divergence(self, logits: Tensor, prediction: Tensor, views: PairedBatch) -> Tensor:
        """Return the mean KL(p || h) over the valid pixels of all ranks."""
        if whole_image(logits):
            return consistency_kl(logits, prediction, size=(1, 1))
        size = (views.weak.shape[-2], views.weak.shape[-1])
        count = self.runtime.average(views.valid.sum())
        return consistency_kl(logits, prediction, size=size, valid=views.valid, denominator=count)


def unit(direction: Tensor) -> Tensor:
    """Scale each image's direction (N, ...) to length 1; a zero one stays zero.

    By the largest entry first: gradients of a step of 1e-6 would vanish when squared.
    """
    flat = direction.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    flat = flat / torch.where(largest > 0, largest, 1)
    length = flat.norm(dim=1, keepdim=True)
    return (flat / torch.where(length > 0, length, 1)).view_as(direction)
