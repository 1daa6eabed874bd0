"""Launch the kernels of `consistency_kl` and tell autograd and the compiler about them."""

# Triton's decorators are not typed.
# pyright: reportArgumentType=false, reportFunctionMemberAccess=false, reportIndexIssue=false
# pyright: reportCallIssue=false

import itertools
from typing import Any

import torch
import triton
from torch import Tensor

from ..compile import CompileCase, Work
from ..layout import check_indices
from ..rows import scale_gradient, to_rows
from ..upsample import stride_of
from .coarse.consistency import coarse_consistency_kernel, coarse_teacher_kernel
from .coarse.plan import COARSE, COLOURS, empty_planes, in_line, is_coarse
from .consistency_kl_triton import (
    LOGITS,
    NO_WARP,
    PROBABILITIES,
    _consistency_kernel,
    _teacher_kernel,
)

CLASSES_ALONE = 19
"""Classes that a thread can hold without spills: four corner gradients, two row ends and both
distributions of each. Beyond, threads share a cell, with at most 12 classes each."""
STEP = 16
"""Rows of cells are padded to a multiple of it, so that few widths need a kernel of their own."""
CACHE = 50 * 2**20
"""Bytes of teacher probabilities at a time: two images of 768 x 768 with 19 classes at stride 4."""


@torch.library.custom_op("warpseg::consistency_kl", mutates_args=())
def consistency_kl_op(
    student: Tensor,
    teacher: Tensor,
    height: int,
    width: int,
    points: Tensor | None,
    weights: Tensor | None,
    valid: Tensor | None,
    logits: bool,
    squared: bool,
    threshold: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each image's summed loss (N,) float32, its number of pixels (N,) int64, and the
    gradient of those sums to the student's logits, (N, h, C, w) float32.
    """
    batch, classes, h, w = student.shape
    stride = stride_of(student, (height, width))
    tile = _tile(student.shape[1], w)
    warped = points is not None and weights is not None
    mode = (LOGITS if logits else PROBABILITIES) if warped else NO_WARP
    # In one line the kernel of warped logits spills 8 bytes on sm_100.
    coarse = is_coarse(stride, classes) and mode != LOGITS
    check_indices(height * width if coarse else 0)
    student_rows, teacher_rows = to_rows(student, tile["STEP"]), to_rows(teacher, tile["STEP"])
    gradient = torch.empty((batch, h, classes, w), dtype=torch.float32, device=student.device)
    images = max(1, batch)
    map = gradient
    if mode == PROBABILITIES:
        map = _map(student, height * stride, tile["STEP"])
        images = len(map)
    inputs = (
        student_rows,
        teacher_rows,
        map,
        gradient if valid is None else valid.contiguous().view(torch.uint8),
        gradient if points is None else points.contiguous(),
        gradient if weights is None else weights.contiguous(),
    )
    options = {
        "COUNT": 0 if points is None else points.shape[1],
        "TEACHER": mode.value,
        "HAS_VALID": valid is not None,
        "THRESHOLD": threshold is not None,
        "SQUARED": squared,
        **tile,
    }
    launch = _launch_line if coarse else _launch_rows
    sizes = h, w, height, width, stride
    losses, counts = launch(inputs, gradient, images, threshold or 0.0, sizes, options, tile)
    return losses.sum((0, 2)), counts.sum((0, 2)), gradient


def _launch_rows(
    inputs: tuple[Tensor, ...],
    gradient: Tensor,
    images: int,
    threshold: float,
    sizes: tuple[int, int, int, int, int],
    options: dict[str, Any],
    tile: dict[str, int],
) -> tuple[Tensor, Tensor]:
    """Launch for so many images at a time, cells of a row together, one colour after the other.

    Returns losses and counts of the programs, (4, N, programs).
    """
    batch, (h, w, *_) = len(gradient), sizes
    grid = (triton.cdiv((w + 2) // 2, tile["CELLS"]), (h + 2) // 2)
    losses = gradient.new_empty((COLOURS, batch, grid[1] * grid[0]))
    counts = torch.empty_like(losses, dtype=torch.int32)
    for first, colour in itertools.product(range(0, batch, images), range(COLOURS)):
        number = min(images, batch - first)
        with torch.cuda.device_of(gradient):
            if options["TEACHER"] == PROBABILITIES and colour == 0:
                all_cells = (triton.cdiv(w + 1, tile["CELLS"]), h + 1, number)
                _teacher_kernel[all_cells](inputs[1][first:], inputs[2], *sizes, **tile)
            _consistency_kernel[(*grid, number)](
                *inputs,
                gradient,
                losses,
                counts,
                colour,
                first,
                batch,
                threshold,
                *sizes,
                **options,
            )
    return losses, counts


def _launch_line(
    inputs: tuple[Tensor, ...],
    gradient: Tensor,
    images: int,
    threshold: float,
    sizes: tuple[int, int, int, int, int],
    options: dict[str, Any],
    tile: dict[str, int],
) -> tuple[Tensor, Tensor]:
    """Launch for so many images at a time, all cells of one in one line, for a coarse map.

    Returns losses and counts of the programs, (1, N, programs).
    """
    batch, (h, w, _, _, stride) = len(gradient), sizes
    plan = in_line(images, h, w, stride, tile["CELLS"])
    programs = plan.programs // images
    losses = gradient.new_empty((1, batch, programs))
    counts = torch.empty_like(losses, dtype=torch.int32)
    planes = empty_planes(gradient, plan)
    numbers = *sizes, *plan.numbers
    for first in range(0, batch, images):
        grid = programs, min(images, batch - first)
        with torch.cuda.device_of(gradient):
            if options["TEACHER"] == PROBABILITIES:
                coarse_teacher_kernel[grid](inputs[1][first:], inputs[2], *numbers, **tile)
            coarse_consistency_kernel[grid](
                *inputs, planes, losses, counts, first, batch, threshold, *numbers, **options
            )
    torch.sum(planes, 0, out=gradient)
    return losses, counts


def _tile(classes: int, width: int) -> dict[str, int]:
    """Choose how many cells a warp owns: one for each thread as long as its classes fit."""
    # With 150 classes a dozen for each thread spills on sm_100.
    most = 12 if classes <= 128 else 8
    threads = 1 if classes <= CLASSES_ALONE else triton.next_power_of_2(triton.cdiv(classes, most))
    return {
        "C": classes,
        "STEP": triton.cdiv(width + 1, STEP) * STEP,
        "CLASSES": triton.next_power_of_2(classes),
        "CELLS": max(1, 32 // threads),
        "num_warps": 1,
    }


def _map(logits: Tensor, lines: int, step: int) -> Tensor:
    """Return room for the probabilities of as many images as the cache holds, at least of one.

    float32 logits keep their precision; others lose none in half precision, finer than bfloat16.
    """
    batch, classes = logits.shape[:2]
    check_indices(lines * classes * step)
    dtype = torch.float32 if logits.dtype == torch.float32 else torch.float16
    images = CACHE // (lines * classes * step * dtype.itemsize)
    return logits.new_empty((max(1, min(batch, images)), lines, classes, step), dtype=dtype)


@consistency_kl_op.register_fake
def _(student: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    batch, classes, h, w = student.shape
    losses = student.new_empty((batch,), dtype=torch.float32)
    gradient = losses.new_empty((batch, h, classes, w))
    return losses, torch.empty_like(losses, dtype=torch.int64), gradient


def _setup(ctx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, counts, gradient = output
    ctx.mark_non_differentiable(counts, gradient)
    ctx.set_materialize_grads(False)  # zeros as large as the gradient, for nobody
    ctx.save_for_backward(gradient)
    student = inputs[0]
    ctx.dtype = student.dtype
    channels_last = student.is_contiguous(memory_format=torch.channels_last)
    ctx.channels_last = channels_last and not student.is_contiguous()


def _backward(
    ctx, upstream: Tensor, _counts: Tensor | None, _gradient: Tensor | None
) -> tuple[Tensor | None, ...]:
    (gradient,) = ctx.saved_tensors
    return scale_gradient(gradient, upstream, ctx.dtype, ctx.channels_last), *[None] * 9


consistency_kl_op.register_autograd(_backward, setup_context=_setup)


def compile_cases() -> list[CompileCase]:
    """List the loss at the recipes' sizes, bfloat16: the variants, many classes, the crop 768.

    The stride is an argument of the kernels; only the length of a padded row depends on it, and
    from stride 8 on they are those of coarse maps, where classes are few.
    """
    cases = []
    every, some = (19, 21, 81, 150, 171), (19, 21)
    for stride, counts, end in ((4, every, ""), (COARSE, some, f"-s{COARSE}")):
        for classes in counts:
            name = f"C{classes}-s{stride}"
            cases.append(_loss_case(name, classes, stride, PROBABILITIES, False))
            if stride < COARSE or classes == 19:
                cases.append(_teacher_case(name, classes, stride))
        if stride < COARSE:
            cases.append(_loss_case("logits", 19, stride, LOGITS, False))
        cases.append(_loss_case(f"no-warp{end}", 19, stride, NO_WARP, False))
        cases.append(_loss_case(f"squared-l2{end}", 19, stride, PROBABILITIES, True))
    return cases


def _loss_case(name: str, classes: int, stride: int, mode: Any, squared: bool) -> CompileCase:
    """Return a case of the launches that belong together.

    Below stride 8 these are four: each reads the student's and the teacher's logits, one writes the
    gradient and three read and write it.
    """
    tile = _tile(classes, 768 // stride)
    warps, per_pixel = tile.pop("num_warps"), classes / stride**2
    cells = triton.cdiv(768 // stride + 1, 2)
    programs, trips = 8 * 4 * cells * triton.cdiv(cells, tile["CELLS"]), (stride, stride)
    kernel, moved = _consistency_kernel, 4 * (2 + 2) + 7 * 4
    if stride >= COARSE:
        plan = in_line(8, 768 // stride, 768 // stride, stride, tile["CELLS"])
        kernel, programs, trips = coarse_consistency_kernel, plan.programs, (plan.rows, stride)
        moved = 2 * (2 + 2) + 4 + 2 * 4 * COLOURS * plan.numbers[1]
    warped = mode is PROBABILITIES
    options = {"COUNT": 0 if mode == NO_WARP else 4, "TEACHER": mode.value, "HAS_VALID": True}
    options |= {"THRESHOLD": squared, "SQUARED": squared}
    kinds = _KINDS if warped else _KINDS | {"map_ptr": "*fp32"}
    return CompileCase(
        name=f"consistency_kl/{name}",
        kernel=kernel,
        signature=_types(kernel.arg_names, kinds, {**tile, **options}),
        constexprs={**tile, **options},
        num_warps=warps,
        bytes_per_pixel=1 + 2 * classes * warped + moved * per_pixel,
        floor_bytes_per_pixel=1 + 6 * per_pixel,
        work=Work(8 * 768**2, programs, trips),
    )


def _teacher_case(name: str, classes: int, stride: int) -> CompileCase:
    tile = _tile(classes, 768 // stride)
    warps, cells = tile.pop("num_warps"), 768 // stride + 1
    kernel, rows = _teacher_kernel, stride
    programs = 8 * cells * triton.cdiv(cells, tile["CELLS"])
    if stride >= COARSE:
        plan = in_line(8, cells - 1, cells - 1, stride, tile["CELLS"])
        kernel, programs, rows = coarse_teacher_kernel, plan.programs, plan.rows
    moved = 2 * classes + 2 * classes / stride**2
    return CompileCase(
        name=f"teacher/{name}",
        kernel=kernel,
        signature=_types(kernel.arg_names, _KINDS, tile),
        constexprs=tile,
        num_warps=warps,
        bytes_per_pixel=moved,
        floor_bytes_per_pixel=moved,
        work=Work(8 * 768**2, programs, (rows, stride)),
    )


_KINDS = {
    "student_ptr": "*bf16",
    "teacher_ptr": "*bf16",
    "valid_ptr": "*u8",
    "map_ptr": "*fp16",
    "count_ptr": "*i32",
    **dict.fromkeys(("points_ptr", "weights_ptr", "gradient_ptr", "loss_ptr"), "*fp32"),
}


def _types(names: list[str], kinds: dict[str, str], constexprs: dict) -> dict[str, str]:
    """Return the type of each runtime parameter of a kernel."""
    kinds = {**kinds, "threshold": "fp32"}
    return {name: kinds.get(name, "i32") for name in names if name not in constexprs}
