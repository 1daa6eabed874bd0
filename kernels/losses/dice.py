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


def _arguments(logits: Tensor, mask: Tensor) -> list[int]:
    """Return the sizes that both kernels take, up to `ignore`."""
    (height, width), (h, w) = mask.shape[1:], logits.shape[2:]
    return [height, width, h, w, stride_of(logits, (height, width)), IGNORE]


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
    strips, segments = triton.cdiv(w + 1, constants["BLOCK_B"]), triton.cdiv(h + 1, _SEGMENT)
    programs = batch * segments * strips
    sums = torch.empty((programs, _SUMS, classes), dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(logits):
        class_sums_kernel[(programs,)](
            to_rows(logits),
            mask.contiguous(),
            sums,
            *_arguments(logits, mask),
            _SEGMENT,
            segments,
            strips,
            **constants,
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
    strips, segments = triton.cdiv(w, constants["BLOCK_B"] - 1), triton.cdiv(h, _SEGMENT)
    with torch.cuda.device_of(logits):
        class_slopes_kernel[(batch * segments * strips,)](
            to_rows(logits),
            mask.contiguous(),
            slopes.contiguous(),
            gradient,
            *_arguments(logits, mask),
            _SEGMENT,
            segments,
            strips,
            **constants,
        )
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
    """List both kernels at the recipes' class counts, for bfloat16 logits at stride 4."""
    cases = []
    for classes in CLASSES:
        constants = _constants(classes)
        warps, lanes = constants.pop("num_warps"), constants["BLOCK_B"]
        names = ("H", "W", "h", "w", "stride", "ignore", "segment", "segments", "strips")
        inputs = {"row_ptr": "*bf16", "mask_ptr": "*u8"}
        for name, kernel, pointers, columns, rows in (
            ("class_sums", class_sums_kernel, {"sum_ptr": "*fp32"}, (193, lanes), 193),
            (
                "class_slopes",
                class_slopes_kernel,
                {"slope_ptr": "*fp32", "gradient_ptr": "*fp32"},
                (192, lanes - 1),
                192,
            ),
        ):
            written = 4 * classes / 16 if name == "class_slopes" else 0.0
            programs = 8 * triton.cdiv(*columns) * triton.cdiv(rows, _SEGMENT)
            cases.append(
                CompileCase(
                    name=f"{name}/C{classes}",
                    kernel=kernel,
                    signature=inputs | pointers | dict.fromkeys(names, "i32"),
                    constexprs=constants,
                    num_warps=warps,
                    bytes_per_pixel=1 + 2 * classes / 16 + written,
                    floor_bytes_per_pixel=1 + 2 * classes / 16 + written / 2,
                    work=Work(8 * 768**2, programs, (4 * (_SEGMENT + 1), 4)),
                )
            )
    return cases
