"""Move a coarse map between channels-last and class rows, (N, h, C, w) in memory.

The cell kernels give each thread a cell and let it hold every class in registers: neighbouring
threads then read neighbouring columns of one class, so each class of a row must lie in one piece.
Networks hand over channels-last logits; they are turned once, at stride s, and the gradient is
turned back while it is scaled. Each row is one small matrix to transpose.
Moved per coarse element: one read, one write.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .compile import CompileCase


@triton.jit
def _rows_kernel(
    in_ptr,
    out_ptr,
    factor_ptr,
    w,
    NUM_CLASSES: tl.constexpr,
    BACK: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """Transpose one block of columns of one row; on the way back multiply by the factor."""
    blocks = tl.cdiv(w, BLOCK_W)
    row = (tl.program_id(0) // blocks).to(tl.int64) * NUM_CLASSES * w
    col = (tl.program_id(0) % blocks) * BLOCK_W + tl.arange(0, BLOCK_W)[None, :]
    cls = tl.arange(0, BLOCK_C)[:, None]
    live = (cls < NUM_CLASSES) & (col < w)
    if BACK:
        value = tl.load(in_ptr + row + cls * w + col, mask=live) * tl.load(factor_ptr)
        tl.store(out_ptr + row + col * NUM_CLASSES + cls, value, mask=live)
    else:
        value = tl.load(in_ptr + row + col * NUM_CLASSES + cls, mask=live)
        tl.store(out_ptr + row + cls * w + col, value, mask=live)


def to_rows(logits: Tensor) -> Tensor:
    """Return (N, C, h, w) logits as a contiguous (N, h, C, w)."""
    rows = logits.transpose(1, 2)
    if not logits.is_contiguous(memory_format=torch.channels_last):
        return rows.contiguous()
    out = torch.empty(rows.shape, dtype=logits.dtype, device=logits.device)
    _launch(logits, out, None)
    return out


@torch.library.custom_op("warpseg::scale_gradient", mutates_args=())
def scale_gradient(
    gradient: Tensor, factor: Tensor, dtype: torch.dtype, channels_last: bool
) -> Tensor:
    """Multiply a float32 (N, h, C, w) by a 0-d factor.

    Returns (N, C, h, w) in the logits' dtype, channels-last or contiguous.
    """
    out = _empty_like_logits(gradient, dtype, channels_last)
    if channels_last:
        _launch(gradient, out, factor)
    else:
        torch.mul(gradient.transpose(1, 2), factor, out=out)
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
    batch, height, classes, w = out.shape if factor is None else map.shape
    block_c = triton.next_power_of_2(classes)
    block_w = max(1, min(2048 // block_c, triton.next_power_of_2(w)))
    constants: dict[str, Any] = {
        "NUM_CLASSES": classes,
        "BACK": factor is not None,
        "BLOCK_C": block_c,
        "BLOCK_W": block_w,
    }
    if map.numel():
        with torch.cuda.device_of(map):
            _rows_kernel[(batch * height * triton.cdiv(w, block_w),)](
                map,
                out,
                map if factor is None else factor,
                w,
                **constants,
            )


def compile_cases() -> list[CompileCase]:
    """List the copies of 19- and 21-class bfloat16 logits at stride 4, there and back."""
    cases = []
    for classes, back in ((19, False), (19, True), (21, False), (21, True)):
        moved = (4 + 2 if back else 2 + 2) * classes / 16
        cases.append(
            CompileCase(
                name=f"{'scale_gradient' if back else 'to_rows'}/C{classes}",
                kernel=_rows_kernel,
                signature={
                    "in_ptr": "*fp32" if back else "*bf16",
                    "out_ptr": "*bf16",
                    "factor_ptr": "*fp32",
                    "w": "i32",
                },
                constexprs={
                    "NUM_CLASSES": classes,
                    "BACK": back,
                    "BLOCK_C": 32,
                    "BLOCK_W": 64,
                },
                bytes_per_pixel=moved,
                floor_bytes_per_pixel=moved,
            )
        )
    return cases
