"""Cases of what makes views: the strong view, warps, mixing, crops."""

from collections.abc import Iterator
from typing import Any

import torch

from .... import kernels as ops
from ....kernels.views.warp import SPLAT_MINIMUM
from .case import CLASSES, COARSE, STRIDE, Case, Draw, Outputs, Target

MEAN, STD = (0.287, 0.325, 0.283), (0.187, 0.190, 0.187)


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
