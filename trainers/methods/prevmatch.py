"""PrevMatch, revisiting and maximizing temporal knowledge (Shin et al. 2024): UniMatch V1 and past.

    each step:  the passes of UniMatch V1:  L_x;  L_1, L_2 of strong views and L_fp of dropped
                features, all taught by labels y, c of the student
                L_std  <- (L_1 + L_2) / 4 + L_fp / 2
                y', c' <- sum w_j snapshot_j(u_w), 1 to 3 of them, w ~ Dirichlet(1)    no gradient
                L_prev <- the same three losses, taught by y' where c' >= tau'
                step of the optimizer on (L_x + alpha (L_std + lambda L_prev)) / (2 + lambda)
    each n-th epoch:  the student enters the snapshots, the oldest of 8 leaves

lambda is a triangle over the epochs: 0, 1 at half of them, 0. Until there is a snapshot the step is
UniMatch V1's. The released code keeps a snapshot where the validation score is a new best, and so
chooses its teachers by validation masks; here time alone does.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ...kernels import Mixing
from ..engine.runtime import Runtime, unwrap
from ..engine.stages import Method, Stage
from ..engine.streams import Batches
from .registry import method
from .settings.prevmatch import PrevMatchSettings
from .shared.class_thresholds import class_thresholds
from .shared.dropped import with_dropped
from .shared.weak_to_strong import (
    Target,
    labeled_loss,
    mixed_images,
    mixing_of,
    stream_specs,
    strong_pass,
    strong_views,
    taught_loss,
    weak_label,
)


@method("prevmatch", PrevMatchSettings)
class PrevMatch(Method):
    """UniMatch V1's two passes, each with one more loss."""

    evaluated = "student"

    def __init__(self, settings: PrevMatchSettings, runtime: Runtime, num_classes: int) -> None:
        self.settings, self.runtime, self.num_classes = settings, runtime, num_classes
        self.student = runtime.train_network(settings.network, num_classes)
        self.drop = partial(with_dropped, rate=settings.feature_dropout)
        # All from the start, so that a checkpoint holds them: which are filled, the step tells.
        self.snapshots = [runtime.frozen_copy(self.student) for _ in range(settings.max_snapshots)]
        self.networks: dict[str, nn.Module] = {"student": self.student}
        self.networks |= {f"snapshot{n}": net for n, net in enumerate(self.snapshots, start=1)}
        self.optimized = {"student": ("student",)}
        self.thresholds = class_thresholds(settings, runtime, num_classes, self.networks)
        self.streams = stream_specs(settings, second=True)
        self.stages = (
            Stage(name="weak", loss=self.weak),
            Stage(name="strong", loss=self.strong, optimizer="student", after=self.keep_snapshot),
        )

    def weak(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """(L_x + alpha (L_fp + lambda L_fp') / 2) / (2 + lambda); targets go on to strong views."""
        settings, labeled, views = self.settings, batches["labeled"], batches["unlabeled"]
        logits = self.student(torch.cat((labeled.image, views.weak)), change=self.drop)
        (clean, dropped), count = logits.chunk(2), len(labeled.image)
        weak, trust = weak_label(clean[count:], views, self.thresholds), self.trust(step)
        targets = [(1.0, weak.target(settings.threshold))]
        if trust > 0:
            said = self.ask_snapshots(views.weak, step)
            previous = weak_label(said, views, self.thresholds, learn=False)
            targets.append((trust, previous.target(settings.previous_threshold)))
        batches["weak"], batches["targets"] = weak, targets
        supervised = labeled_loss(clean[:count], labeled.mask, settings, self.runtime)
        perturbed = self._taught(dropped[count:], targets, None)
        shares = {f"taught{n}": target.share for n, (_, target) in enumerate(targets)}
        loss = torch.add(supervised, perturbed, alpha=settings.alpha / 2) / (2 + trust)
        return {"loss": loss, "labeled": supervised, "features": perturbed, **shares}

    def strong(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """alpha (L_1 + L_2 + lambda (L_1' + L_2')) / 4 / (2 + lambda)."""
        settings, targets = self.settings, batches["targets"]
        images = strong_views(batches["unlabeled"])
        mixings = [mixing_of(settings, batches["weak"], self.num_classes) for _ in images]
        with strong_pass(settings, self.student):
            logits = self.student(mixed_images(images, mixings)).chunk(2)
        first, second = (
            self._taught(z, targets, mixing) for z, mixing in zip(logits, mixings, strict=True)
        )
        return {"loss": (first + second) * (settings.alpha / 4) / (2 + self.trust(step))}

    def keep_snapshot(self, step: int) -> None:
        """Let the student take the place of the oldest snapshot, at the end of every n-th epoch."""
        taken, rest = divmod(step + 1, self.settings.epoch_steps * self.settings.snapshot_epochs)
        if rest == 0:
            place = (taken - 1) % len(self.snapshots)
            self.snapshots[place].load_state_dict(unwrap(self.student).state_dict())

    def snapshots_at(self, step: int) -> int:
        """Return how many snapshots there are at a step."""
        taken = step // (self.settings.epoch_steps * self.settings.snapshot_epochs)
        return min(taken, len(self.snapshots))

    def trust(self, step: int) -> float:
        """Return lambda: a triangle over the epochs, 0 while there is no snapshot."""
        begun = step // self.settings.epoch_steps * self.settings.epoch_steps
        ramp = 1 - abs(1 - 2 * begun / self.settings.num_steps)
        return ramp if self.snapshots_at(step) else 0.0

    @torch.no_grad()
    def ask_snapshots(self, image: Tensor, step: int) -> Tensor:
        """Return the logits of some snapshots, weighted by a draw from Dirichlet(1, ..., 1)."""
        draw = np.random.default_rng((self.settings.seed, step, self.runtime.rank))
        wanted = draw.integers(1, self.settings.max_asked, endpoint=True)
        chosen = draw.permutation(self.snapshots_at(step))[:wanted]
        pairs = zip(draw.dirichlet(np.ones(len(chosen))), chosen, strict=True)
        return torch.stack([float(share) * self.snapshots[n](image) for share, n in pairs]).sum(0)

    def _taught(
        self, logits: Tensor, targets: list[tuple[float, Target]], mixing: Mixing | None
    ) -> Tensor:
        """Return the losses of one view by all targets, weighted."""
        losses = [w * taught_loss(logits, t.mixed(mixing), self.runtime) for w, t in targets]
        return torch.stack(losses).sum()
