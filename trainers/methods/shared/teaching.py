"""What makes a pass a teacher's, and how its word is compared with a student's.

A teacher takes no gradient and drops nothing out; its batch norms follow a policy. Its prediction
of one view is compared with the student's of another at the pixels that both show.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ....kernels import (
    TPS,
    Mixing,
    consistency_kl,
    consistency_kl_reference,
    inverse_splat,
    upsample,
    warp,
)
from ....models.norm import batch_norm_policy, find
from ....pipelines.batches import PairedBatch
from ...engine.runtime import Runtime

_TINY = 1e-37
_WHOLE = 1 - 1e-6
"""Least weight of a blend that shows nothing but the image."""


@contextmanager
def teaching(network: nn.Module, batch_norm: str) -> Iterator[None]:
    """Make the passes inside a teacher's: no gradient, no dropout, batch norms by policy."""
    dropouts = find(network, _DropoutNd)
    modes = [layer.training for layer in dropouts]
    try:
        for layer in dropouts:
            layer.training = False
        with torch.no_grad(), batch_norm_policy(network, batch_norm):
            yield
    finally:
        for layer, mode in zip(dropouts, modes, strict=True):
            layer.training = mode


def whole_image(logits: Tensor) -> bool:
    """Tell whether logits (N, C, h, w) are of images as wholes: classification."""
    return logits.shape[-2:] == (1, 1)


def view_divergence(
    perturbed: Tensor,
    target: Tensor,
    views: PairedBatch,
    runtime: Runtime,
    *,
    boxes: Mixing | None = None,
    sure: Tensor | None = None,
    from_second: bool = False,
    reduction: str = "pooled",
    reverse: bool = False,
    hard: bool = False,
    **options: Any,
) -> Tensor:
    """Return the mean divergence D(target, perturbed) over the valid pixels of all ranks, 0-d.

    perturbed, target: logits (N, C, h, w) of the strong view and of the weak view, or of the second
    strong view if `from_second`. boxes: the CutMix of the strong view; the target is mixed alike,
    at full resolution. sure: pixels of the weak view, (N, H, W) bool, that are compared; the others
    count as equal. reduction and options are those of `consistency_kl`; reverse makes it
    D(perturbed, target), hard the first of the two one-hot. Gradients flow to both sides; detach
    the one that must get none. Of whole images nothing is warped or masked.

    Raises ValueError for CutMix of whole images, whose class is no pixel's.
    """
    compare = consistency_kl
    if target.requires_grad or reverse or hard:
        compare = partial(consistency_kl_reference, reverse=reverse, hard=hard)
    if whole_image(perturbed):
        if boxes is not None:
            raise ValueError("CutMix is for segmentation; classify with --no-cutmix")
        return compare(perturbed, target, size=(1, 1), reduction=reduction, **options)
    size = (views.strong.shape[-2], views.strong.shape[-1])
    tps, valid = views.tps, views.valid
    if from_second:
        target, shown = _from_second_view(target, views, size, options.get("blend") == "logits")
        perturbed, tps, valid = upsample(perturbed, size), None, valid & shown
    parts = [(target, tps, valid)]
    if boxes is not None:
        # Two sums instead of a mixed map: the warp and the boxes hold at every pixel exactly.
        partner, mixed = boxes.partner, boxes.mask()
        parts = [
            (target, tps, valid & ~mixed),
            (target[partner], _take(tps, partner), valid[partner] & mixed),
        ]
    denominator = None
    if reduction == "pooled":
        denominator = runtime.average(_total([valid.sum() for *_, valid in parts]))
    if sure is not None:
        sure = sure if tps is None else warp(sure.to(torch.uint8), tps, mode="nearest", fill=0) > 0
        rows = [sure] if boxes is None else [sure, sure[boxes.partner]]
        parts = [(z, spline, v & s) for (z, spline, v), s in zip(parts, rows, strict=True)]
    losses = [
        compare(
            perturbed,
            logits,
            size=size,
            tps=spline,
            valid=counted,
            reduction=reduction,
            denominator=denominator,
            **options,
        )
        for logits, spline, counted in parts
    ]
    return _total(losses)


def _total(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).sum()


def _from_second_view(
    logits: Tensor, views: PairedBatch, size: tuple[int, int], as_logits: bool
) -> tuple[Tensor, Tensor]:
    """Bring a prediction of the second strong view into the first one, at full resolution.

    The second view's warp is undone by forward splatting, the first one's is applied. Returns
    logits (N, C, H, W) and, (N, H, W) bool, where they blend no hole of the splatting.
    """
    assert views.second is not None
    full = upsample(logits.to(torch.promote_types(logits.dtype, torch.float32)), size)
    values = full if as_logits else full.softmax(1)
    shown = torch.ones_like(views.valid)
    if views.second.tps is not None:
        values, shown = inverse_splat(values, views.second.tps)
    if views.tps is not None:
        values = warp(values, views.tps)
        shown = warp(shown.to(values.dtype), views.tps) >= _WHOLE
    return values if as_logits else values.clamp_min(_TINY).log(), shown


def _take(tps: TPS | None, rows: Tensor) -> TPS | None:
    return None if tps is None else TPS(points=tps.points[rows], weights=tps.weights[rows])
