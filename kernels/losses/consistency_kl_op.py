"""Launch the kernels of `consistency_kl` and tell autograd and the compiler about them."""

# Triton's decorators are not typed.
# pyright: reportArgumentType=false, reportFunctionMemberAccess=false, reportIndexIssue=false
# pyright: reportCallIssue=false

import itertools

import torch
import triton
from torch import Tensor

from ..compile import CompileCase, Work
from ..layout import check_indices
from ..rows import scale_gradient, to_rows
from ..upsample import stride_of
from .consistency_kl_triton import (
    LOGITS,
    NO_WARP,
    PROBABILITIES,
    _consistency_kernel,
    _teacher_kernel,
)

COLOURS = 4
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
    student_rows, teacher_rows = to_rows(student, tile["STEP"]), to_rows(teacher, tile["STEP"])
    sizes = h, w, height, width, stride
    grid = (triton.cdiv((w + 2) // 2, tile["CELLS"]), (h + 2) // 2)
    losses = student.new_empty((COLOURS, batch, grid[1] * grid[0]), dtype=torch.float32)
    counts = torch.empty_like(losses, dtype=torch.int32)
    gradient = losses.new_empty((batch, h, classes, w))
    images = batch
    map = losses
    if mode == PROBABILITIES:
        map = _map(student, height * stride, tile["STEP"])
        images = len(map)
    for first, colour in itertools.product(range(0, batch, images), range(COLOURS)):
        number = min(images, batch - first)
        with torch.cuda.device_of(student):
            if mode == PROBABILITIES and colour == 0:
                all_cells = (triton.cdiv(w + 1, tile["CELLS"]), h + 1, number)
                _teacher_kernel[all_cells](teacher_rows[first:], map, *sizes, **tile)
            _consistency_kernel[(*grid, number)](
                student_rows,
                teacher_rows,
                map,
                counts if valid is None else valid.contiguous().view(torch.uint8),
                losses if points is None else points.contiguous(),
                losses if weights is None else weights.contiguous(),
                gradient,
                losses,
                counts,
                colour,
                first,
                batch,
                0.0 if threshold is None else threshold,
                *sizes,
                COUNT=0 if points is None else points.shape[1],
                TEACHER=mode.value,
                HAS_VALID=valid is not None,
                THRESHOLD=threshold is not None,
                SQUARED=squared,
                **tile,
            )
    return losses.sum((0, 2)), counts.sum((0, 2)), gradient


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

    The stride is an argument of the kernels; only the length of a padded row depends on it. Of the
    four launches together, each reads the student's and the teacher's logits, one writes the
    gradient and three read and write it.
    """
    names = ("student", "teacher", "valid", "map", "points", "weights", "gradient", "loss", "count")
    kinds = ("*bf16", "*bf16", "*u8", "*fp16", *["*fp32"] * 4, "*i32")
    kinds = {f"{name}_ptr": kind for name, kind in zip(names, kinds, strict=True)}
    rows = [(f"C{c}-s4", c, 4, PROBABILITIES, False) for c in (19, 21, 81, 150, 171)]
    rows += [("logits", 19, 4, LOGITS, False), ("no-warp", 19, 4, NO_WARP, False)]
    rows += [("squared-l2", 19, 4, PROBABILITIES, True)]
    cases = []
    for name, classes, stride, mode, squared in rows:
        tile = _tile(classes, 768 // stride)
        per_pixel = classes / stride**2
        cells = tile["CELLS"]
        shared = {"num_warps": tile.pop("num_warps"), "floor_bytes_per_pixel": 1 + 6 * per_pixel}
        options = {"COUNT": 0 if mode == NO_WARP else 4, "TEACHER": mode.value, "HAS_VALID": True}
        options |= {"THRESHOLD": squared, "SQUARED": squared}
        warped = mode is PROBABILITIES
        types = kinds if warped else kinds | {"map_ptr": "*fp32"}
        cases.append(
            CompileCase(
                name=f"consistency_kl/{name}",
                kernel=_consistency_kernel,
                signature=_types(_consistency_kernel.arg_names, types, {**tile, **options}),
                constexprs={**tile, **options},
                work=Work(8 * 768**2, 8 * 4 * 97 * triton.cdiv(97, cells), (4, 4)),
                bytes_per_pixel=1 + 2 * classes * warped + (4 * (2 + 2) + 7 * 4) * per_pixel,
                **shared,
            )
        )
        if name.startswith("C"):
            shared["floor_bytes_per_pixel"] = 2 * classes + 2 * per_pixel
            cases.append(
                CompileCase(
                    name=f"teacher/{name}",
                    kernel=_teacher_kernel,
                    signature=_types(_teacher_kernel.arg_names, kinds, tile),
                    constexprs=tile,
                    work=Work(8 * 768**2, 8 * 193 * triton.cdiv(193, cells), (4, 4)),
                    bytes_per_pixel=2 * classes + 2 * per_pixel,
                    **shared,
                )
            )
    return cases


def _types(names: list[str], kinds: dict[str, str], constexprs: dict) -> dict[str, str]:
    """Return the type of each runtime parameter of a kernel."""
    kinds = {**kinds, "threshold": "fp32"}
    return {name: kinds.get(name, "i32") for name in names if name not in constexprs}
