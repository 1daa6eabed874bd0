"""Add a row of the C x C table to each pixel's logits, in the logits' own memory format."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compile import CompileCase, Work
from ..layout import check_indices, dense
from .class_moments_triton import label_of, sizes_and_strides

# pyright: reportArgumentType=false, reportAssignmentType=false, reportFunctionMemberAccess=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

TILE = 2048


@triton.jit(do_not_specialize=["H", "W", "h", "w", "stride", "stride_n"])
def _feature_shift_kernel(
    logits_ptr,
    label_ptr,
    table_ptr,
    out_ptr,
    H,
    W,
    h,
    w,
    stride,
    stride_n,
    stride_c,
    stride_p,
    IGNORED: tl.constexpr,
    C: tl.constexpr,
    CLASSES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the label's row of the table to BLOCK pixels of one image."""
    n = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = pixel < h * w
    label = label_of(label_ptr, n, pixel, live, stride, H, W, w)
    k = tl.arange(0, CLASSES)
    known = live & (label >= 0) & (label < C) & (label != IGNORED)
    here = live[:, None] & (k < C)[None, :]
    at = n * stride_n + pixel.to(tl.int64)[:, None] * stride_p + k[None, :] * stride_c
    value = tl.load(logits_ptr + at, mask=here).to(tl.float32)
    row = table_ptr + tl.where(known, label, 0).to(tl.int32)[:, None] * C + k[None, :]
    value += tl.load(row, mask=here & known[:, None], other=0.0)
    tl.store(out_ptr + at, value, mask=here)


@torch.library.custom_op("warpseg::feature_shift", mutates_args=())
def feature_shift_op(logits: Tensor, label: Tensor, table: Tensor, ignore: int) -> Tensor:
    """Add the table's rows; the result has the logits' dtype and memory format."""
    logits, classes = dense(logits), logits.shape[1]
    out = torch.empty_like(logits)
    padded = triton.next_power_of_2(classes)
    block = max(1, TILE // padded)
    height, width = logits.shape[-2:]
    check_indices(height * width)
    if not out.numel():
        return out
    with torch.cuda.device_of(logits):
        _feature_shift_kernel[(triton.cdiv(height * width, block), logits.shape[0])](
            logits,
            label.contiguous(),
            table.contiguous(),
            out,
            *sizes_and_strides(logits, label),
            IGNORED=ignore,
            C=classes,
            CLASSES=padded,
            BLOCK=block,
        )
    return out


@feature_shift_op.register_fake
def _(logits: Tensor, label: Tensor, table: Tensor, ignore: int) -> Tensor:
    return torch.empty_like(dense(logits))


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    return gradient, None, None, None


feature_shift_op.register_autograd(_backward)


def compile_cases() -> list[CompileCase]:
    """List the kernel at the class counts of the recipes, on channels-last bfloat16 logits."""
    cases = []
    for classes in (19, 21):
        padded = triton.next_power_of_2(classes)
        pointers = {"logits_ptr": "*bf16", "label_ptr": "*u8", "table_ptr": "*fp32"}
        sizes = ("H", "W", "h", "w", "stride", "stride_n", "stride_c", "stride_p")
        # The label at each cell's centre touches every fourth row of the map.
        moved = 4 * classes / 16 + 1 / 4
        cases.append(
            CompileCase(
                name=f"feature_shift/C{classes}-s4",
                kernel=_feature_shift_kernel,
                signature={**pointers, "out_ptr": "*bf16", **dict.fromkeys(sizes, "i32")},
                sizes={"stride_c": 1, "stride_p": classes},
                constexprs={
                    "IGNORED": 255,
                    "C": classes,
                    "CLASSES": padded,
                    "BLOCK": max(1, TILE // padded),
                },
                work=Work(8 * 768**2, 8 * 192 * 192 // (TILE // padded)),
                bytes_per_pixel=moved,
                floor_bytes_per_pixel=moved,
            )
        )
    return cases
