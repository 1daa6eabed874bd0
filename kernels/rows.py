"""Move a coarse map between a network's logits and class rows, (N, h, C, step) in memory.

The cell kernels give each thread a cell and let it hold every class in registers: neighbouring
threads then read neighbouring columns of one class, so each class of a row must lie in one piece.
Networks hand over channels-last logits; they are turned once, at stride s, and the gradient is
turned back while it is scaled. Each row is one small matrix to transpose.

The copy also replaces -inf, the logit of a class that is masked out, by a finite number that no
softmax can tell from it: the kernels interpolate by slopes, and the slope between two infinities is
NaN. `logit_of` gives such a class its infinity back. Moved per coarse element: one read, one write.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .compile import CompileCase, Work
from .layout import check_indices
from .upsample import MASKED as LOWEST_LOGIT

# pyright: reportArgumentType=false, reportAssignmentType=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false

MASKED = tl.constexpr(LOWEST_LOGIT)
LEAST_HALF = tl.constexpr(-65504.0)
"""What stands for -inf in float16, until it is widened."""


@triton.jit
def widen(value):
    """Return loaded rows in float32, where a masked class is MASKED."""
    wide = value.to(tl.float32)
    if value.dtype == tl.float16:
        wide = tl.where(wide <= LEAST_HALF, MASKED, wide)
    return wide


@triton.jit(do_not_specialize=["h"])
def _rows_kernel(
    in_ptr,
    out_ptr,
    factor_ptr,
    h,
    w,
    in_n,
    in_h,
    in_c,
    in_w,
    out_n,
    out_h,
    out_c,
    out_w,
    NUM_CLASSES: tl.constexpr,
    BACK: tl.constexpr,
    PER_IMAGE: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """Transpose one block of columns of one row; on the way back multiply by the factor."""
    blocks = tl.cdiv(w, BLOCK_W)
    line = tl.program_id(0) // blocks
    n = (line // h).to(tl.int64)
    row = (line % h).to(tl.int64)
    col = (tl.program_id(0) % blocks) * BLOCK_W + tl.arange(0, BLOCK_W)[None, :]
    cls = tl.arange(0, BLOCK_C)[:, None]
    live = (cls < NUM_CLASSES) & (col < w)
    kind = out_ptr.dtype.element_ty
    value = tl.load(in_ptr + n * in_n + row * in_h + cls * in_c + col * in_w, mask=live)
    value = value.to(tl.float32)
    if BACK:
        value *= tl.load(factor_ptr + n) if PER_IMAGE else tl.load(factor_ptr)
    else:
        least = LEAST_HALF if kind == tl.float16 else MASKED
        value = tl.where(value == float("-inf"), least, value)
    tl.store(out_ptr + n * out_n + row * out_h + cls * out_c + col * out_w, value.to(kind), live)


def to_rows(logits: Tensor, step: int | None = None) -> Tensor:
    """Return (N, C, h, w) logits of any strides as (N, h, C, step), by default as long as w.

    Columns beyond w are not written. Raises ValueError for an image beyond 32-bit indices.
    """
    batch, classes, h, w = logits.shape
    check_indices(h * classes * (step or w))
    out = torch.empty((batch, h, classes, step or w), dtype=logits.dtype, device=logits.device)
    _launch(logits.transpose(1, 2), out, None)
    return out


@torch.library.custom_op("warpseg::scale_gradient", mutates_args=())
def scale_gradient(
    gradient: Tensor, factor: Tensor, dtype: torch.dtype, channels_last: bool
) -> Tensor:
    """Multiply a float32 (N, h, C, w) by a factor, 0-d or one per image (N,).

    Returns (N, C, h, w) in the logits' dtype, channels-last or contiguous.
    """
    out = _empty_like_logits(gradient, dtype, channels_last)
    _launch(gradient, out.transpose(1, 2), factor.contiguous())
    return out


@scale_gradient.register_fake
def _(gradient: Tensor, factor: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
    return _empty_like_logits(gradient, dtype, channels_last)


def _empty_like_logits(gradient: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
    return torch.empty(
        gradient.transpose(1, 2).shape,
        dtype=dtype,
        device=gradient.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def _launch(map: Tensor, out: Tensor, factor: Tensor | None) -> None:
    """Copy the first w columns of (N, h, C, w) maps of any strides."""
    batch, height, classes, w = map.shape
    block_c = triton.next_power_of_2(classes)
    block_w = max(1, min(2048 // block_c, triton.next_power_of_2(w)))
    constants: dict[str, Any] = {
        "NUM_CLASSES": classes,
        "BACK": factor is not None,
        "PER_IMAGE": factor is not None and factor.ndim > 0,
        "BLOCK_C": block_c,
        "BLOCK_W": block_w,
    }
    if map.numel():
        with torch.cuda.device_of(map):
            _rows_kernel[(batch * height * triton.cdiv(w, block_w),)](
                map,
                out,
                map if factor is None else factor,
                height,
                w,
                *map.stride(),
                *out.stride(),
                **constants,
            )


def compile_cases() -> list[CompileCase]:
    """List the copies of 19- and 21-class bfloat16 logits at stride 4, there and back."""
    cases = []
    for classes, back in ((19, False), (19, True), (21, False), (21, True)):
        moved = (4 + 2 if back else 2 + 2) * classes / 16
        last = {"n": 192 * 192 * classes, "h": 192 * classes, "c": 1, "w": classes}
        rows = last | {"c": 192, "w": 1}
        sizes = {f"in_{axis}": step for axis, step in (rows if back else last).items()}
        sizes |= {f"out_{axis}": step for axis, step in (last if back else rows).items()}
        cases.append(
            CompileCase(
                name=f"{'scale_gradient' if back else 'to_rows'}/C{classes}",
                kernel=_rows_kernel,
                signature={
                    "in_ptr": "*fp32" if back else "*bf16",
                    "out_ptr": "*bf16",
                    "factor_ptr": "*fp32" if back else "*bf16",
                    **dict.fromkeys(("h", "w", *sizes), "i32"),
                },
                sizes={"w": 192, **sizes},
                constexprs={
                    "NUM_CLASSES": classes,
                    "BACK": back,
                    "PER_IMAGE": False,
                    "BLOCK_C": 32,
                    "BLOCK_W": 64,
                },
                work=Work(8 * 768**2, 8 * 192 * 3),
                bytes_per_pixel=moved,
                floor_bytes_per_pixel=moved,
            )
        )
    return cases
