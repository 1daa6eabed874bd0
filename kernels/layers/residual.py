"""The end of a residual block: add the shortcut, ReLU; backward, add what all readers send.

    y = max(a + b, 0)        dL/da = dL/db = (g_1 + g_2 + ...) [y > 0]

Two to three parts of a network read y: the next block, its shortcut, a head. PyTorch adds their
gradients by one launch each before that of the ReLU, and forward takes two. Here each way is one;
sums are rounded as PyTorch rounds them, one after the other.

Bytes an element of b bytes: forward 3 b instead of 5 b, the floor; backward of r readers (r + 2) b
instead of 3 r b, the floor.
"""

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compile import CompileCase, Work
from .fusing import fused

BLOCK = 1024
MOST = 3
"""Gradients that one launch adds."""


def add_relu_reference(residual: Tensor, shortcut: Tensor) -> Tensor:
    """Return the ReLU of a sum, which takes the place of `residual`."""
    residual += shortcut
    return residual.relu_()


@triton.jit
def _add_relu_kernel(residual_ptr, shortcut_ptr, out_ptr, count, BLOCK: tl.constexpr):
    """Store the ReLU of the rounded sum; NaN stays."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < count
    kind = out_ptr.dtype.element_ty
    total = tl.load(residual_ptr + at, live).to(tl.float32)
    total += tl.load(shortcut_ptr + at, live).to(tl.float32)
    total = total.to(kind).to(tl.float32)
    tl.store(out_ptr + at, tl.where(total < 0, 0.0, total).to(kind), live)


@triton.jit
def _add_relu_backward_kernel(
    first_ptr,
    second_ptr,
    third_ptr,
    value_ptr,
    out_ptr,
    count,
    READERS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Store the sum of the readers' gradients where the value is not below or at 0."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < count
    kind = out_ptr.dtype.element_ty
    total = tl.load(first_ptr + at, live).to(tl.float32)
    if READERS > 1:
        total += tl.load(second_ptr + at, live).to(tl.float32)
        total = total.to(kind).to(tl.float32)
    if READERS > 2:
        total += tl.load(third_ptr + at, live).to(tl.float32)
        total = total.to(kind).to(tl.float32)
    value = tl.load(value_ptr + at, live).to(tl.float32)
    tl.store(out_ptr + at, tl.where(value <= 0, 0.0, total).to(kind), live)


@torch.library.custom_op("warpseg::add_relu", mutates_args=())
def add_relu_op(residual: Tensor, shortcut: Tensor) -> Tensor:
    """Return the ReLU of the sum of two maps that lie alike in memory."""
    out = torch.empty_like(residual)
    if out.numel():
        with torch.cuda.device_of(out):
            _add_relu_kernel[(triton.cdiv(out.numel(), BLOCK),)](
                residual, shortcut, out, out.numel(), BLOCK=BLOCK
            )
    return out


@add_relu_op.register_fake
def _(residual: Tensor, shortcut: Tensor) -> Tensor:
    return torch.empty_like(residual)


@torch.library.custom_op("warpseg::add_relu_backward", mutates_args=())
def add_relu_backward_op(gradients: Sequence[Tensor], value: Tensor) -> Tensor:
    """Return the gradient of either addend: of up to `MOST` gradients, added in their order."""
    out = torch.empty_like(value)
    if out.numel():
        some = [*gradients, *[value] * (MOST - len(gradients))]
        with torch.cuda.device_of(out):
            _add_relu_backward_kernel[(triton.cdiv(out.numel(), BLOCK),)](
                *some, value, out, out.numel(), READERS=len(gradients), BLOCK=BLOCK
            )
    return out


@add_relu_backward_op.register_fake
def _(gradients: Sequence[Tensor], value: Tensor) -> Tensor:
    return torch.empty_like(value)


class _AddRelu(torch.autograd.Function):
    """The ReLU of a sum, one tensor for each of its readers over one memory."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, shortcut: Tensor, readers: int) -> tuple[Tensor, ...]:
        value = add_relu_op(residual, shortcut)
        ctx.save_for_backward(value)
        ctx.set_materialize_grads(False)
        return (value, *(value.view_as(value) for _ in range(readers - 1)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (value,) = ctx.saved_tensors
        found = [
            gradient.contiguous(memory_format=torch.channels_last)
            for gradient in gradients
            if gradient is not None
        ]
        if not found:
            return None, None, None
        total = add_relu_backward_op(found, value)
        return total, total, None


def add_relu(residual: Tensor, shortcut: Tensor, readers: int = 1) -> tuple[Tensor, ...]:
    """Return the ReLU of a sum of two maps (N, C, h, w), once for each of 1 to 3 readers.

    The results are one map, in the order in which backward adds the readers' gradients. `residual`
    may be overwritten. Any float dtype. Raises ValueError where the shapes differ, and for other
    numbers of readers.
    """
    if residual.shape != shortcut.shape or not 1 <= readers <= MOST:
        raise ValueError(
            f"add_relu takes two maps of one shape and 1 to {MOST} readers; got "
            f"{tuple(residual.shape)}, {tuple(shortcut.shape)} and {readers}"
        )
    if fused(residual, shortcut):
        return _AddRelu.apply(residual, shortcut, readers)
    return (add_relu_reference(residual, shortcut),) * readers


def compile_cases() -> list[CompileCase]:
    """List both ways for 64 bfloat16 channels at stride 4, and backward for 1 to 3 readers."""
    elements = 8 * 64 * 192 * 192
    work = Work(8 * 768**2, triton.cdiv(elements, BLOCK))
    per_pixel = 2 * 64 / 16
    forward = dict.fromkeys(("residual_ptr", "shortcut_ptr", "out_ptr"), "*bf16")
    names = ("first_ptr", "second_ptr", "third_ptr", "value_ptr", "out_ptr")
    cases = [
        CompileCase(
            name="add_relu",
            kernel=_add_relu_kernel,
            signature={**forward, "count": "i32"},
            sizes={"count": elements},
            constexprs={"BLOCK": BLOCK},
            work=work,
            bytes_per_pixel=3 * per_pixel,
            floor_bytes_per_pixel=3 * per_pixel,
        )
    ]
    for readers in range(1, MOST + 1):
        cases.append(
            CompileCase(
                name=f"add_relu-backward/{readers}",
                kernel=_add_relu_backward_kernel,
                signature={**dict.fromkeys(names, "*bf16"), "count": "i32"},
                sizes={"count": elements},
                constexprs={"READERS": readers, "BLOCK": BLOCK},
                work=work,
                bytes_per_pixel=(readers + 2) * per_pixel,
                floor_bytes_per_pixel=(readers + 2) * per_pixel,
            )
        )
    return cases
