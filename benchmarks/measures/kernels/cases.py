"""Cases of `warpseg bench kernels`: each operation at a size of the recipes, with its target."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .... import kernels as ops
from ....kernels.losses.class_moments import class_moments
from .case import CLASSES, COARSE, STRIDE, Case, Draw, Target
from .views import crops, mixing, views

LOSS = Target(speedup=5.0, memory=1 / 20, asynchronous=True)


def losses(draw: Draw) -> Iterator[Case]:
    """Yield the losses, forward and backward."""
    mask, confidence = draw.labels(), draw.confidences()
    yield _loss("cross_entropy", draw, ops.cross_entropy, mask, map_bytes=1)
    yield _loss("focal", draw, ops.focal, mask, map_bytes=1)
    yield _loss("dice", draw, ops.dice, mask, map_bytes=2)
    yield _loss(
        "dynamic_ce",
        draw,
        lambda z, y, c: ops.dynamic_ce(z, y, c, gamma1=5.0, gamma2=5.0)[0],
        mask,
        confidence,
        map_bytes=5,
    )
    yield _loss("self_correction", draw, lambda z, y: ops.self_correction(z, y), mask, map_bytes=1)
    threshold = torch.tensor(0.6, device=draw.device)
    yield _loss(
        "reweight",
        draw,
        lambda z, y, c: ops.reweight(z, y, c, threshold=threshold),
        mask,
        confidence,
        map_bytes=5,
    )
    teacher, spline = draw.logits(seed=5), draw.spline()
    valid = ops.valid_mask(spline, draw.shape)
    for op, options in (
        ("consistency_kl", {"tps": spline, "valid": valid}),
        ("consistency_kl-unwarped", {}),
        ("consistency_kl-l2", {"divergence": "squared_l2", "threshold": 0.97}),
    ):
        yield _loss(
            op,
            draw,
            lambda s, t, options=options: ops.consistency_kl(s, t, size=draw.shape, **options),
            teacher,
            map_bytes=1 if options.get("valid") is not None else 0,
            logits=2,
            # The op keeps the warped distribution in half precision.
            tolerance=1e-2 if "tps" in options else None,
        )


def labels(draw: Draw) -> Iterator[Case]:
    """Yield pseudo-labels, their threshold, the confusion matrix and CutMix."""
    logits, mask = draw.logits(), draw.labels()
    described = draw.described(f"C{CLASSES} s{STRIDE} bf16")
    yield Case(
        op="pseudo_label",
        size=described,
        function=lambda z: ops.pseudo_label(z, draw.shape),
        inputs=(logits,),
        floor_bytes=draw.pixels * (2 * COARSE + 5),
    )
    yield Case(
        op="confusion",
        size=described,
        function=lambda z, y: ops.confusion(z, y, CLASSES),
        inputs=(logits, mask),
        floor_bytes=draw.pixels * (2 * COARSE + 1),
    )


def hard_pixels(draw: Draw) -> Iterator[Case]:
    """Yield the probabilities of true classes, the pass of OHEM that has a kernel of its own."""
    logits, mask = draw.logits(), draw.labels()
    yield Case(
        op="target_prob",
        size=draw.described(f"C{CLASSES} s{STRIDE} bf16"),
        function=lambda z, y: ops.target_prob(z, y),
        inputs=(logits, mask),
        floor_bytes=draw.pixels * (2 * COARSE + 5),
    )


def _loss(
    op: str,
    draw: Draw,
    function: Callable[..., Any],
    *maps: Any,
    map_bytes: float,
    logits: int = 1,
    tolerance: float | None = None,
) -> Case:
    """Return a loss: `logits` maps read, one gradient written, map_bytes per pixel of the rest."""
    return Case(
        op=op,
        size=draw.described(f"C{CLASSES} s{STRIDE} bf16"),
        function=function,
        inputs=(draw.logits(), *maps),
        gradient=0,
        exact=tuple(range(logits)),
        floor_bytes=draw.pixels * (2 * COARSE * (logits + 1) + map_bytes),
        tolerance=tolerance,
        target=LOSS,
    )


def quantile(draw: Draw) -> Iterator[Case]:
    """Yield the exact quantile of the batch's confidences."""
    yield Case(
        op="quantile",
        size=draw.described("fp32"),
        function=lambda values: ops.quantile(values, 0.2),
        inputs=(draw.confidences(),),
        floor_bytes=4 * draw.pixels,
        target=Target(milliseconds=0.1, asynchronous=True),
    )


def statistics(draw: Draw) -> Iterator[Case]:
    """Yield the feature augmentation of MKD: table, shift and class moments."""
    label, channels = draw.labels(), 256
    table = torch.rand(CLASSES, CLASSES, device=draw.device)
    yield Case(
        op="feature_shift",
        size=draw.described(f"C{CLASSES} s{STRIDE} bf16"),
        function=ops.feature_shift,
        inputs=(draw.logits(), label, table),
        floor_bytes=draw.pixels * (4 * COARSE + 1 / STRIDE),
    )
    yield Case(
        op="class_moments",
        size=draw.described(f"A{channels} s{STRIDE} bf16"),
        function=lambda feature, label: class_moments(feature, label, CLASSES),
        inputs=(draw.logits(channels), label),
        exact=(0,),
        floor_bytes=draw.pixels * (2 * channels / STRIDE**2 + 1 / STRIDE),
    )


def averaging(draw: Draw) -> Iterator[Case]:
    """Yield the Mean Teacher update of 200 tensors of 200 thousand numbers, against a loop."""
    student = [torch.randn(200_000, device=draw.device) for _ in range(200)]
    teacher = [torch.randn_like(tensor) for tensor in student]

    def update(old: list[Tensor], new: list[Tensor]) -> list[Tensor]:
        ops.ema_update(old, new, 0.99)
        return old[:1]

    def loop(old: list[Tensor], new: list[Tensor]) -> list[Tensor]:
        for before, after in zip(old, new, strict=True):
            before.mul_(0.99).add_(after, alpha=0.01)
        return old[:1]

    yield Case(
        op="ema_update",
        size="40M parameters",
        function=update,
        baseline=loop,
        mutated=0,
        inputs=(teacher, student),
        floor_bytes=12 * 40e6,
    )


GROUPS: tuple[tuple[Callable[[Draw], Iterator[Case]], tuple[int, int, int]], ...] = (
    (losses, (8, 768, 768)),
    (labels, (8, 768, 768)),
    (quantile, (8, 1024, 1024)),
    (hard_pixels, (4, 768, 768)),
    (views, (16, 512, 1024)),
    (mixing, (16, 512, 1024)),
    (crops, (16, 512, 1024)),
    (statistics, (8, 768, 768)),
    (averaging, (1, 1, 1)),
)
"""Makers of cases, and the size (N, H, W) at which they are measured on a GPU."""
SMALL = (1, 96, 128)
"""The size on a CPU."""


def cases(
    device: torch.device, size: tuple[int, int, int] | None, op: str | None
) -> Iterator[Case]:
    """Yield the cases one after another at `size`, or their own; only those of `op` if given."""
    for make, full in GROUPS:
        chosen = size or (full if device.type == "cuda" else SMALL)
        for case in make(Draw(device=device, size=chosen)):
            if op is None or case.op == op or case.op.startswith(f"{op}-"):
                yield case
