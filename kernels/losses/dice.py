"""Soft dice loss of stride-s logits against a full-resolution mask (Milletari et al. 2016, without
squares).

    L = mean over the classes c that the mask shows of 1 - 2 I_c / (P_c + Y_c)
    I_c = sum_i [y_i = c] p_ic,    P_c = sum_i p_ic,    Y_c = sum_i [y_i = c]

over the pixels i of the batch whose mask is not `ignore`, p the softmax of the upsampled logits.
Every class counts alike, however few pixels it has. Two passes: one sums I, P and Y in registers
while it walks over the cells, one that knows a class's slopes a = dL/dP and b = dL/dI sends

    dL/dz_k = p_k (g_k - sum_c p_c g_c),    g_c = a_c + [y = c] b_c

down to the stride-s grid, as `cells.py` does. Bytes per pixel, C classes of b bytes: 2 for the mask
twice, 2bC/s^2 to turn the logits into rows and bC/s^2 to read them, twice each, 4C/s^2 of float32
gradient; the sums of the programs are some MB.
"""

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportArgumentType=false, reportCallIssue=false

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from ... import IGNORE
from ..cells import tile
from ..compile import CompileCase, Work
from ..dispatch import use_op
from ..layout import check_indices
from ..pixel_loss import check_targets, pixel_terms
from ..rows import scale_gradient, to_rows
from ..upsample import stride_of
from .coarse.classes import coarse_slopes_kernel, coarse_sums_kernel
from .coarse.plan import COARSE, COLOURS, Plan, empty_planes, in_line, is_coarse
from .dice_triton import class_slopes_kernel, class_sums_kernel

CLASSES = (21, 81, 150, 171)
"""Class counts of the recipes, at which both kernels are compiled."""
_SUMS = 3
"""Sums of a class: overlap I, probability P, true pixels Y."""
_SEGMENT = 8
"""Rows of logits that a program walks down."""


def class_sums_reference(logits: Tensor, mask: Tensor) -> Tensor:
    """Sum overlap, probability and true pixels of each class in plain PyTorch: (3, C)."""
    terms = pixel_terms(logits, mask)
    kept = terms.kept.to(terms.log_prob.dtype)
    index, classes = terms.target.flatten(), logits.shape[1]
    picked = torch.where(terms.kept, terms.target_log_prob, 0).exp() * kept
    empty = kept.new_zeros(classes)
    # A product for the sum: where all classes but a few are masked, exp(-inf) has no slope.
    prob = torch.einsum("nchw,nhw->c", terms.log_prob.exp(), kept)
    overlap = empty.index_add(0, index, picked.flatten())
    return torch.stack((overlap, prob, empty.index_add(0, index, kept.flatten())))


def _sizes(logits: Tensor, mask: Tensor) -> tuple[int, int, int, int, int]:
    """Return H, W, h, w and the stride. Raises ValueError for images that are not numbered."""
    (height, width), (h, w) = mask.shape[1:], logits.shape[2:]
    stride = stride_of(logits, (height, width))
    check_indices(height * width if is_coarse(stride, logits.shape[1]) else 0)
    return height, width, h, w, stride


def _plan(batch: int, rows: int, columns: int, step: int) -> Plan:
    """Cut rows and columns, of cells or of logits, into segments and strips."""
    strips, segments = triton.cdiv(columns, step), triton.cdiv(rows, _SEGMENT)
    return Plan((_SEGMENT, segments, strips), batch * segments * strips, _SEGMENT + 1)


def _constants(classes: int) -> dict[str, Any]:
    block_c, lanes, warps = tile(classes)
    return {"NUM_CLASSES": classes, "BLOCK_C": block_c, "BLOCK_B": lanes, "num_warps": warps}


@torch.library.custom_op("warpseg::class_sums", mutates_args=())
def _class_sums(logits: Tensor, mask: Tensor) -> Tensor:
    batch, classes, h, w = logits.shape
    check_indices(classes * h * w)
    if not mask.numel() or not logits.numel():
        return logits.new_zeros((_SUMS, classes), dtype=torch.float32)
    constants = _constants(classes)
    sizes = _sizes(logits, mask)
    if is_coarse(sizes[-1], classes):
        sums_kernel, plan = coarse_sums_kernel, in_line(batch, *sizes[2:], constants["BLOCK_B"])
    else:
        sums_kernel, plan = class_sums_kernel, _plan(batch, h + 1, w + 1, constants["BLOCK_B"])
    sums = torch.empty((plan.programs, _SUMS, classes), dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(logits):
        sums_kernel[(plan.programs,)](
            to_rows(logits), mask.contiguous(), sums, *sizes, IGNORE, *plan.numbers, **constants
        )
    return sums.sum(0, dtype=torch.float64).float()


@_class_sums.register_fake
def _(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.new_empty((_SUMS, logits.shape[1]), dtype=torch.float32)


@torch.library.custom_op("warpseg::class_slopes", mutates_args=())
def _class_slopes(logits: Tensor, mask: Tensor, slopes: Tensor) -> Tensor:
    gradient = _gradient(logits, mask, slopes)
    batch, classes, h, w = logits.shape
    if not mask.numel() or not logits.numel():
        return gradient.zero_()
    constants = _constants(classes)
    sizes, out = _sizes(logits, mask), gradient
    if is_coarse(sizes[-1], classes):
        slopes_kernel, plan = coarse_slopes_kernel, in_line(batch, *sizes[2:], constants["BLOCK_B"])
        out = empty_planes(gradient, plan)
    else:
        slopes_kernel, plan = class_slopes_kernel, _plan(batch, h, w, constants["BLOCK_B"] - 1)
    with torch.cuda.device_of(logits):
        slopes_kernel[(plan.programs,)](
            to_rows(logits),
            mask.contiguous(),
            slopes.contiguous(),
            out,
            *sizes,
            IGNORE,
            *plan.numbers,
            **constants,
        )
    if out is not gradient:
        torch.sum(out, 0, out=gradient)
    return gradient


@_class_slopes.register_fake
def _gradient(logits: Tensor, mask: Tensor, slopes: Tensor) -> Tensor:
    batch, classes, h, w = logits.shape
    return logits.new_empty((batch, h, classes, w), dtype=torch.float32)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
    logits, mask = ctx.saved_tensors
    # Y has no slope; the kernel wants that of P first.
    gradient = _class_slopes(logits, mask, upstream[:2].flip(0))
    one = torch.ones((), device=logits.device)
    return scale_gradient(gradient, one, logits.dtype, not logits.is_contiguous()), None


_class_sums.register_autograd(_backward, setup_context=_save)


def class_sums(logits: Tensor, mask: Tensor) -> Tensor:
    """Return overlap, probability and true pixels of each class, (3, C) float32.

    `logits` (N, C, h, w) at stride s of any float dtype and memory format; `mask` (N, H, W) of
    integers, IGNORE where nothing counts. Gradient: of overlap and probability to the logits.

    Raises ValueError for shapes and dtypes that do not fit.
    """
    check_targets(logits, mask)
    if use_op(logits, mask):
        return _class_sums(logits, mask)
    return class_sums_reference(logits, mask)


def dice(
    logits: Tensor, mask: Tensor, *, average: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return the mean dice loss of the classes that the batch's masks show, 0-d, in [0, 1].

    `logits` and `mask` as in `class_sums`. `average`: the mean of a tensor over all ranks, by which
    ranks have the loss, and once their gradients are averaged the gradient, of the joined batch.
    Without labeled pixels the loss and its gradient are 0. Gradient: to the logits.

    Raises ValueError for shapes and dtypes that do not fit.
    """
    sums = class_sums(logits, mask)
    if average is not None:
        sums = sums + (average(sums.detach()) - sums.detach())
    overlap, prob, true = sums
    shown = true > 0
    missed = torch.where(shown, 1 - 2 * overlap / torch.where(shown, prob + true, 1), 0)
    return missed.sum() / shown.sum().clamp(min=1)


def compile_cases() -> list[CompileCase]:
    """List both kernels for bfloat16 logits, at the recipes' class counts and for coarse maps.

    8 images of 768 x 768 pixels at stride 4, of 512 x 512 at stride 8.
    """
    cases = []
    for classes in CLASSES:
        lanes = _constants(classes)["BLOCK_B"]
        sums, slopes = _plan(8, 193, 193, lanes), _plan(8, 192, 192, lanes - 1)
        cases.append(_case("class_sums", class_sums_kernel, classes, 4, sums))
        cases.append(_case("class_slopes", class_slopes_kernel, classes, 4, slopes))
    plan = in_line(8, 64, 64, COARSE, _constants(21)["BLOCK_B"])
    cases.append(_case("class_sums", coarse_sums_kernel, 21, COARSE, plan))
    cases.append(_case("class_slopes", coarse_slopes_kernel, 21, COARSE, plan))
    return cases


def _case(name: str, kernel: Any, classes: int, stride: int, plan: Plan) -> CompileCase:
    constants = _constants(classes)
    warps = constants.pop("num_warps")
    kinds = {"row_ptr": "*bf16", "mask_ptr": "*u8"}
    kinds |= dict.fromkeys(("sum_ptr", "slope_ptr", "gradient_ptr"), "*fp32")
    per_pixel = classes / stride**2
    written = 4 * per_pixel if name == "class_slopes" else 0.0
    coarse = stride >= COARSE
    planes = 2 * COLOURS * plan.numbers[1] if coarse else 0
    rows = plan.rows if coarse else plan.rows * stride
    return CompileCase(
        name=f"{name}/C{classes}{f'-s{stride}' if coarse else ''}",
        kernel=kernel,
        signature={
            name: kinds.get(name, "i32") for name in kernel.arg_names if name not in constants
        },
        constexprs=constants,
        num_warps=warps,
        bytes_per_pixel=1 + 2 * per_pixel + written * (1 + planes),
        floor_bytes_per_pixel=1 + 2 * per_pixel + written / 2,
        work=Work(8 * (512 if coarse else 768) ** 2, plan.programs, (rows, stride)),
    )
