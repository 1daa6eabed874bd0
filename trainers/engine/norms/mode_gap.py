"""The mode gap: how far a network's predictions under running and under batch statistics differ.

Batch norms normalise by the batch while a network learns and by running statistics when it is
asked. Where the unlabeled images hold a scene that the running statistics do not know, the two
modes answer differently, and a teacher of the one mode misleads a student of the other: labels
collapse there while the score on other scenes rises.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ....models.norm import batch_norm_policy, find
from ..runtime import Runtime

TERM = "batch_norm/mode_gap"
"""The term's name in the log."""
WARN = 0.25
"""Share of pixels from which on the gap is warned of."""


@dataclass(frozen=True)
class ModeGap:
    """Shares of pixels, 0-d float32 tensors on the device."""

    disagreement: Tensor
    """Pixels (at the logits' stride) whose most probable class differs."""
    commonest: Tensor
    """Pixels of the class that running statistics name most often: near 1 in a collapse."""


def has_batch_norm(network: nn.Module) -> bool:
    """Tell whether a network has batch norms whose modes differ: with running statistics, and not
    frozen."""
    norms = find(network, _BatchNorm)
    return any(n.running_mean is not None and not getattr(n, "frozen", False) for n in norms)


@torch.no_grad()
def mode_labels(network: nn.Module, image: Tensor, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Return the classes (N, h, w), int64, that a network names in images (N, 3, H, W), normalised,
    under its running statistics and under those of the batch.

    Nothing is moved: no statistics, no gradient, no random numbers. Does not wait for the device.
    """
    dropouts = [layer for layer in find(network, _DropoutNd) if layer.training]
    try:
        for layer in dropouts:
            layer.training = False
        labels = []
        for policy in ("running", "batch_frozen"):
            with batch_norm_policy(network, policy), runtime.autocast():
                labels.append(network(image).float().argmax(1))
    finally:
        for layer in dropouts:
            layer.training = True
    return labels[0], labels[1]


@torch.no_grad()
def mode_gap(network: nn.Module, image: Tensor, runtime: Runtime) -> ModeGap:
    """Return how far the two modes of a network differ on images, as `mode_labels`, of which two or
    more make it mean something."""
    running, batch = mode_labels(network, image, runtime)
    classes = cast(Any, network).num_classes
    counts = torch.nn.functional.one_hot(running.flatten(), classes).sum(0)
    return ModeGap(
        disagreement=(running != batch).float().mean(),
        commonest=counts.max().float() / running.numel(),
    )


def log_gap(network: nn.Module, batches: Mapping[str, Any], runtime: Runtime) -> dict[str, Tensor]:
    """Return the terms to log of one step's batches: the gap on unlabeled images where there are
    any, on labeled ones elsewhere; none for a network without batch norms, or for single images."""
    if not has_batch_norm(network):
        return {}
    unlabeled = batches.get("unlabeled")
    images = batches["labeled"].image if unlabeled is None else unlabeled.weak
    if len(images) < 2:
        return {}
    with runtime.speed.eagerly():
        gap = mode_gap(network, images, runtime)
    return {TERM: gap.disagreement, "batch_norm/commonest": gap.commonest}


def concerns(means: Mapping[str, float]) -> dict[str, str]:
    """Say what a logged gap should worry the user about."""
    if means.get(TERM, 0.0) <= WARN:
        return {}
    return {
        TERM: f"running and batch statistics disagree on {means[TERM]:.0%} of the pixels of these "
        "images: their batch norms do not know them. A teacher with running statistics misleads "
        "there; see `warpseg diagnose norm --by scene`, docs/which-method.md, and where the method "
        "has it `--teacher-batch-norm batch`"
    }
