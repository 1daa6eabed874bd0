"""What FixMatch, UniMatch and PrevMatch share: labels of weak views that teach strong ones.

    y, c <- argmax and max of the softmax of some network on the weak view          no gradient
    L(z) = sum_i CE(z_i, y_i) [c_i >= tau] / #{i: the crop shows an image at i}

Unsure pixels count in the denominator, padding does not; the mixing moves labels, their certainty
and the padding alike. Counts are means over all ranks, so that ranks together have the gradient of
the joined batch.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from torch import Tensor, nn

from .... import IGNORE
from ....kernels import (
    Mixing,
    cross_entropy,
    hard_pixels,
    mix,
    pseudo_label,
)
from ....kernels.encoded import Encoded, View, joined
from ....models import batch_norm_policy
from ....pipelines.batches import PairedBatch
from ...engine.runtime import Runtime, unwrap
from ...engine.streams import StreamSpec
from ..settings.weak_to_strong import WeakToStrongSettings
from .class_thresholds import ClassThresholds
from .losses import label_loss
from .mixing import draw_mixing
from .teaching import teaching


class Target(NamedTuple):
    """What is taught of a view.

    label: (N, H, W) uint8, IGNORE where nothing is taught. shown: (N, H, W) bool, neither padding
    nor labeled by a mask.
    """

    label: Tensor
    shown: Tensor

    def mixed(self, mixing: Mixing | None) -> "Target":
        """Return the target of the view that is mixed alike."""
        return self if mixing is None else Target(mix(self.label, mixing), mix(self.shown, mixing))

    @property
    def share(self) -> Tensor:
        """The share of the shown pixels that are taught, 0-d; for the log."""
        return (self.label != IGNORE).sum() / self.shown.sum().clamp(min=1)


class WeakLabel(NamedTuple):
    """What a network says of weak views: label (N, H, W) uint8, confidence, and what they show."""

    label: Tensor
    confidence: Tensor
    shown: Tensor

    def target(self, threshold: float) -> Target:
        """Return what is taught: sure labels where the crop shows an image."""
        taught = self.shown & (self.confidence >= threshold)
        return Target(self.label.masked_fill(~taught, IGNORE), self.shown)


def stream_specs(settings: WeakToStrongSettings, *, second: bool) -> dict[str, StreamSpec]:
    """Return the streams: labeled images, and weak and strong views of unlabeled ones."""
    return {
        "labeled": StreamSpec(kind="labeled", subset="labeled", batch_size=settings.batch_size),
        "unlabeled": StreamSpec(
            kind="paired",
            subset="unlabeled",
            batch_size=settings.unlabeled_batch_size,
            strong=settings.strong,
            second_view=second,
        ),
    }


def weak_label(
    logits: Tensor,
    views: PairedBatch,
    thresholds: ClassThresholds | None = None,
    *,
    learn: bool = True,
) -> WeakLabel:
    """Label weak views by logits (N, C, h, w) at stride s; no gradient.

    thresholds: class-wise ones, which `learn` from these labels; confidences are relative then.
    """
    size = (views.weak.shape[-2], views.weak.shape[-1])
    made = pseudo_label(logits.detach(), size)
    confidence, shown = made.confidence, views.shown()
    if thresholds is not None:
        if learn:
            thresholds.update(made.label, confidence, shown)
        confidence = thresholds.relative(made.label, confidence)
    return WeakLabel(made.label, confidence, shown)


def label_views(
    network: nn.Module, views: PairedBatch, thresholds: ClassThresholds | None = None
) -> WeakLabel:
    """Have a network label weak views in evaluation mode; no gradient, no distributed wrapper."""
    network = unwrap(network)
    with teaching(network, "running"):
        return weak_label(network(views.weak), views, thresholds)


def mixing_of(settings: WeakToStrongSettings, weak: WeakLabel, num_classes: int) -> Mixing | None:
    """Draw how one strong view is mixed; None for not at all."""
    if settings.mixing == "none":
        return None
    label = weak.label.masked_fill(~weak.shown, IGNORE)
    chance = None if settings.mixing == "classes" else settings.mix_probability
    return draw_mixing(settings.mixing, label, num_classes, preset="unimatch", probability=chance)


def strong_views(views: PairedBatch) -> list[View]:
    """Return the one or two strong views of a batch."""
    return [views.strong] if views.second is None else [views.strong, views.second.strong]


def mixed_images(images: Sequence[View], mixings: list[Mixing | None]) -> View:
    """Return the mixed views, (K N, 3, H, W), one after the other.

    Raises TypeError for features that are to be mixed: theirs would not be those of mixed images.
    """
    pairs = zip(images, mixings, strict=True)
    return joined([image if mixing is None else _mixed(image, mixing) for image, mixing in pairs])


def _mixed(image: View, mixing: Mixing) -> Tensor:
    if isinstance(image, Encoded):
        raise TypeError("features of images are not those of mixed images")
    return mix(image, mixing)


def taught_loss(logits: Tensor, target: Target, runtime: Runtime) -> Tensor:
    """Return the cross-entropy of the taught pixels over the number of shown ones, 0-d.

    logits (N, C, h, w) at stride s.
    """
    count = runtime.average(target.shown.sum())
    return cross_entropy(logits, target.label, denominator=count)


def labeled_loss(
    logits: Tensor, mask: Tensor, settings: WeakToStrongSettings, runtime: Runtime
) -> Tensor:
    """Return the loss over labeled pixels of all ranks, or over the hard ones; which those are is
    each rank's own affair, as in the published codes."""
    if settings.labeled_loss == "hard":
        mask = hard_pixels(
            logits, mask, threshold=settings.hard_threshold, least=settings.hard_least
        )
    return label_loss(logits, mask, settings, runtime)


def strong_pass(
    settings: WeakToStrongSettings, student: nn.Module
) -> AbstractContextManager[object]:
    """Return the context of a pass on strong views: the policy of its batch norms."""
    if settings.strong_batch_norm == "batch":
        return nullcontext()
    return batch_norm_policy(student, settings.strong_batch_norm)


def ema_share(step: int, decay: float) -> float:
    """Return the share of the teacher that a step (from 0) keeps; the first copies the student."""
    return min(1 - 1 / (step + 1), decay)
