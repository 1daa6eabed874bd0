"""Cases of `warpseg bench kernels`: each operation at a size of the recipes, with its target."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .... import kernels as ops
from ....kernels.losses.class_moments import class_moments
from ....kernels.views.warp import SPLAT_MINIMUM
from .case import CLASSES, STRIDE, Case, Draw, Outputs, Target

MEAN, STD = (0.287, 0.325, 0.283), (0.187, 0.190, 0.187)
LOSS = Target(speedup=5.0, memory=1 / 20, asynchronous=True)
COARSE = CLASSES / STRIDE**2
"""Logits per pixel of the full-resolution map."""


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


def views(draw: Draw) -> Iterator[Case]:
    """Yield what makes the strong view, and the warps."""
    batch = draw.size[0]
    spline, crop = draw.spline(), draw.images()
    change = ops.sample_photometric(batch, generator=torch.Generator().manual_seed(6))
    change = change.to(draw.device)
    described = draw.described("bf16")
    for op, with_weak in (("strong_view", False), ("strong_view-weak", True)):
        yield Case(
            op=op,
            size=described,
            function=lambda image, with_weak=with_weak: ops.strong_view(
                image,
                photometric=change,
                tps=spline,
                dtype=torch.bfloat16,
                with_weak=with_weak,
                mean=MEAN,
                std=STD,
            ),
            inputs=(crop,),
            floor_bytes=draw.pixels * (16 if with_weak else 10),
            target=Target() if with_weak else Target(speedup=5.0, milliseconds=0.25),
        )
    image = crop.permute(0, 3, 1, 2).float()
    yield Case(
        op="warp",
        size=draw.described("C3 fp32"),
        function=lambda values: ops.warp(values, spline),
        inputs=(image,),
        exact=(0,),
        tolerance=_of_positions(draw.shape),
        floor_bytes=24 * draw.pixels,
    )
    yield Case(
        op="inverse_splat",
        size=draw.described("C3 fp32"),
        function=lambda values: ops.inverse_splat(values, spline),
        inputs=(image,),
        exact=(0,),
        tolerance=_of_positions(draw.shape),
        compared=lambda outputs: _by_weight(outputs, spline),
        floor_bytes=25 * draw.pixels,
    )


def _of_positions(shape: tuple[int, int]) -> float:
    """Return by how much warped noise may err, relative to its range.

    Positions are float32 pixels, known to about an ulp of the extent on either side, and noise may
    change by its range from one pixel to the next, along both axes.
    """
    return 4 * torch.finfo(torch.float32).eps * sum(shape)


def _by_weight(outputs: Outputs, spline: Any) -> Outputs:
    """Return a splat's mean times what each pixel received, one pixel's weight at most.

    The mean of next to nothing is a quotient of rounding errors, and near SPLAT_MINIMUM they decide
    what is a hole: there nothing is compared.
    """
    mean, valid = outputs["0"], outputs["1"]
    given = torch.zeros_like(valid, dtype=torch.float32).requires_grad_()
    # What a pixel receives is the sum of the weights with which the warp reads it.
    (received,) = torch.autograd.grad(ops.warp_reference(given, spline).sum(), given)
    unsure = (received > SPLAT_MINIMUM / 2) & (received < 2 * SPLAT_MINIMUM)
    weight = received.clamp(max=1).masked_fill(unsure, 0)
    return {"0": mean * weight[:, None], "1": valid & ~unsure}


def mixing(draw: Draw) -> Iterator[Case]:
    """Yield CutMix of images, labels and logits."""
    boxes = ops.cutmix_boxes(
        draw.size[0], draw.shape, preset="mkd", generator=torch.Generator().manual_seed(7)
    ).to(draw.device)
    image = draw.images().permute(0, 3, 1, 2).bfloat16()
    for op, map, moved, size in (
        ("cutmix-images", image, 12.0, "C3 bf16"),
        ("cutmix-labels", draw.labels(), 2.0, "u8"),
        ("cutmix-logits", draw.logits(), 4 * COARSE, f"C{CLASSES} s{STRIDE} bf16"),
    ):
        yield Case(
            op=op,
            size=draw.described(size),
            function=lambda map: ops.cutmix(map, boxes),
            inputs=(map,),
            floor_bytes=moved * draw.pixels,
        )


def crops(draw: Draw) -> Iterator[Case]:
    """Yield crops of resident images of twice the height and width, scaled by .5 to 2."""
    batch, height, width = draw.size
    images = ops.ResidentImages.allocate([(2 * height, 2 * width)] * batch, draw.device)
    images.pixels.random_(0, 256, generator=torch.Generator(draw.device).manual_seed(8))
    assert images.mask is not None
    images.mask.random_(0, CLASSES, generator=torch.Generator(draw.device).manual_seed(9))
    scale = torch.linspace(0.5, 2.0, batch)
    scaled = torch.stack([2 * height * scale, 2 * width * scale], 1).int()
    plan = ops.CropPlan(
        index=torch.arange(batch).flip(0),
        scaled=scaled,
        origin=(scaled - torch.tensor([height, width])) // 2,
        flip=torch.arange(batch) % 2 == 1,
        size=draw.shape,
    ).to(draw.device)
    for op, antialias in (("random_crop", True), ("random_crop-bilinear", False)):
        yield Case(
            op=op,
            size=draw.described("u8"),
            function=lambda images, plan, a=antialias: ops.random_crop(images, plan, antialias=a),
            inputs=(images, plan),
            floor_bytes=8 * draw.pixels,
            # Half-way levels may round either way.
            mismatch=(2e-3, 1.0),
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
