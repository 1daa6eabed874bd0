"""What launches compile: run the operations on Triton's real path, with a driver that has no GPU.

Run as a script, with Triton's interpreter off: it prints, as JSON, the cases of the compile report
that no launch below compiles, and what the launches of the same kernels compile instead. The CPU's
tensors stand for a GPU's: what Triton looks at, types, sizes and the alignment of addresses, is the
same. Heights are small, widths those of recipes.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction
from warpseg.benchmarks.measures.kernels.compiled import all_cases
from warpseg.kernels import (
    confusion,
    consistency_kl,
    cross_entropy,
    cutmix,
    cutmix_boxes,
    dice,
    dispatch,
    dynamic_ce,
    feature_shift,
    focal,
    inverse_splat,
    pseudo_label,
    quantile,
    random_crop,
    reweight,
    sample_photometric,
    sample_tps,
    self_correction,
    strong_view,
    warp,
    window_mask,
)
from warpseg.kernels.compile import ARCHITECTURES, specialised
from warpseg.kernels.labels.ohem import target_prob
from warpseg.kernels.layers.pyramid import average_grids, join_levels
from warpseg.kernels.layers.residual import add_relu
from warpseg.kernels.layers.resize_add import resize_add
from warpseg.kernels.losses.class_moments import class_moments
from warpseg.kernels.losses.dynamic_ce import FORMS
from warpseg.kernels.views.resident import CropPlan, ResidentImages

SIZE = (16, 768)
VIEW = (16, 1024)
Key = tuple[str, str]


class Driver:
    """As much of a driver as a launch asks for."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", ARCHITECTURES[0], 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def key(kernel: Any, signature: dict, constants: dict, attributes: dict, warps: int) -> Key:
    """Return a kernel's name and all that decides about its machine code beside the source."""
    named = {kernel.arg_names[path[0]]: value for path, value in constants.items()}
    named = {name: getattr(value, "value", value) for name, value in named.items()}
    named = {name: getattr(value, "__name__", value) for name, value in named.items()}
    aligned = sorted(kernel.arg_names[path[0]] for path, found in attributes.items() if found)
    return kernel.fn.__name__, repr((signature, sorted(named.items()), aligned, warps))


@contextmanager
def recorded() -> Iterator[set[Key]]:
    """Yield the keys of what is launched inside; nothing is compiled or run."""
    found: set[Key] = set()

    def record(self: Any, _key: Any, signature: dict, _device: Any, constants: dict, *rest: Any):
        options, attributes = rest[0], rest[1]
        found.add(key(self, signature, constants, attributes, options.num_warps))

    before, JITFunction._do_compile = JITFunction._do_compile, record
    interpreted, dispatch.INTERPRETED = dispatch.INTERPRETED, True
    driver.set_active(Driver())
    try:
        with dispatch.kernels("triton"):
            yield found
    finally:
        JITFunction._do_compile, dispatch.INTERPRETED = before, interpreted


def logits(classes: int, grad: bool = False, stride: int = 4) -> Tensor:
    """Return (2, C, 4, 192) bfloat16, or coarser, channels-last."""
    made = torch.zeros(2, classes, SIZE[0] // stride, SIZE[1] // stride, dtype=torch.bfloat16)
    return made.contiguous(memory_format=torch.channels_last).requires_grad_(grad)


CLASSES = (19, 21, 81, 150, 171)


def launch_losses() -> None:
    mask = torch.zeros(2, *SIZE, dtype=torch.uint8)
    confidence = torch.ones(2, *SIZE)
    for stride, classes in product((4, 8), CLASSES):
        z, weight = logits(classes, True, stride), torch.ones(classes)
        cross_entropy(z, mask).backward()
        focal(z, mask)
        focal(z, mask, weight=weight)
        dice(z, mask).backward()
        cross_entropy(z, mask, weight=weight)
        reweight(z, mask, confidence, threshold=0.5)
        for reversed in (False, True):
            self_correction(z, mask, reversed=reversed)
        for form in FORMS:
            dynamic_ce(z, mask, confidence, form=form)


def launch_consistency() -> None:
    spline, valid = sample_tps(2, SIZE), torch.ones(2, *SIZE, dtype=torch.bool)
    for stride, classes in product((4, 8), CLASSES):
        for options in (
            {"tps": spline},
            {"tps": spline, "blend": "logits"},
            {},
            {"tps": spline, "divergence": "squared_l2", "threshold": 0.5},
        ):
            both = logits(classes, stride=stride), logits(classes, stride=stride)
            consistency_kl(*both, size=SIZE, valid=valid, **options)


def launch_labels() -> None:
    boxes = cutmix_boxes(2, SIZE)
    mask = torch.zeros(2, *SIZE, dtype=torch.uint8)
    for classes in CLASSES:
        confusion(logits(classes), mask, classes)
        target_prob(logits(classes), mask)
        pseudo_label(logits(classes), SIZE)
        pseudo_label(logits(classes), SIZE, boxes=boxes)
    values = torch.ones(2, *SIZE)
    quantile(values, 0.2, mask=values > 0)


def launch_views() -> None:
    crop = torch.zeros(2, *VIEW, 3, dtype=torch.uint8)
    window = torch.tensor([[0, 0, *VIEW]] * 2, dtype=torch.int32)
    spline, colours = sample_tps(2, VIEW), sample_photometric(2)
    plain = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "dtype": torch.bfloat16, "window": window}
    for options in (
        {"tps": spline, "photometric": colours},
        {"tps": spline, "photometric": colours, "with_weak": True},
        {"tps": spline, "photometric": colours, "with_weak": True, "space": "rgb", "clamp": True},
        {"tps": spline, "with_weak": True},
        {},
    ):
        strong_view(crop, **plain, **options)
    maps = torch.zeros(2, 19, *SIZE, dtype=torch.bfloat16)
    warps = sample_tps(2, SIZE)
    warp(maps, warps)
    last = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
    warp(last, warps).backward(torch.zeros_like(last))
    inverse_splat(last.detach(), warps)
    warp(torch.zeros(2, 1, *SIZE, dtype=torch.uint8), warps, mode="nearest", fill=255)


def launch_mixing() -> None:
    images = torch.zeros(2, 3, *VIEW, dtype=torch.bfloat16)
    cutmix(images.contiguous(memory_format=torch.channels_last), cutmix_boxes(2, VIEW))
    cutmix(torch.zeros(2, *VIEW, dtype=torch.uint8), cutmix_boxes(2, VIEW, preset="gta"))
    mixed = cutmix(logits(19, True), cutmix_boxes(2, SIZE))
    mixed.backward(torch.zeros_like(mixed))
    mask = torch.zeros(2, *SIZE, dtype=torch.uint8)
    for classes in (19, 21):
        feature_shift(logits(classes), mask, torch.zeros(classes, classes))
        feature = torch.zeros(2, 256, SIZE[0] // 4, SIZE[1] // 4, dtype=torch.bfloat16)
        class_moments(feature.contiguous(memory_format=torch.channels_last), mask, classes)


def launch_crops() -> None:
    for confidence, antialias in ((False, True), (False, False), (True, True)):
        pixels = torch.zeros(64 * 2048, 3, dtype=torch.uint8)
        cache = ResidentImages(
            pixels=pixels,
            offset=torch.zeros(1, dtype=torch.int64),
            size=torch.tensor([[64, 2048]], dtype=torch.int32),
            mask=pixels[:, 0].contiguous(),
            confidence=pixels[:, 0].half() if confidence else None,
        )
        plan = CropPlan(
            index=torch.zeros(2, dtype=torch.int64),
            scaled=torch.tensor([[64, 2048]] * 2, dtype=torch.int32),
            origin=torch.zeros(2, 2, dtype=torch.int32),
            flip=torch.zeros(2, dtype=torch.bool),
            size=VIEW,
        )
        random_crop(cache, plan, antialias=antialias)


def feature(channels: int, *size: int) -> Tensor:
    """Return (2, C, h, w) bfloat16, channels-last, which learns."""
    made = torch.zeros(2, channels, *size, dtype=torch.bfloat16)
    return made.contiguous(memory_format=torch.channels_last).requires_grad_()


def launch_layers() -> None:
    for readers in (1, 2, 3):
        read = add_relu(feature(64, 4, 192), feature(64, 4, 192), readers)
        sum(y.sum() for y in read).backward()
    resize_add(feature(128, 2, 96), feature(128, 4, 192))
    x, *means = average_grids(feature(128, 24, 24), ((8, 8), (4, 4), (2, 2)))
    levels = [feature(42, *mean.shape[-2:]) for mean in means]
    (join_levels(x, levels).sum() + sum(mean.sum() for mean in means)).backward()
    window_mask(torch.zeros(2, 4, dtype=torch.int32), VIEW)


def unlaunched() -> dict[str, list[str]]:
    """Return by name each case that nothing launches, and what its kernel was launched with."""
    launches = (
        launch_losses,
        launch_consistency,
        launch_labels,
        launch_views,
        launch_mixing,
        launch_crops,
    )
    with recorded() as found:
        for launch in (*launches, launch_layers):
            launch()
    missing = {}
    for case in all_cases():
        wanted = key(case.kernel, *specialised(case), case.num_warps)
        if wanted not in found:
            others = [text for name, text in sorted(found) if name == wanted[0]]
            missing[case.name] = [wanted[1], *others]
    return missing


if __name__ == "__main__":
    print(json.dumps(unlaunched()))
