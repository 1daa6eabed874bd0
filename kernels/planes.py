"""Move a coarse map between channels-last and class planes.

The cell kernels give each thread one cell and let it hold every class in registers: neighbouring
threads then read neighbouring pixels of one class plane. Networks hand over channels-last logits,
so they are turned once, at stride s, and the gradient is turned back while it is scaled.
Moved per coarse element: one read, one write.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .compile import CompileCase


@triton.jit
def _planes_kernel(
    in_ptr,
    out_ptr,
    factor_ptr,
    pixels,
    NUM_CLASSES: tl.constexpr,
    FROM_LAST: tl.constexpr,
    TO_LAST: tl.constexpr,
    SCALED: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Copy one block of pixels of one image, all classes."""
    blocks = tl.cdiv(pixels, BLOCK_P)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = (tl.program_id(0) % blocks) * BLOCK_P + tl.arange(0, BLOCK_P)[None, :]
    cls = tl.arange(0, BLOCK_C)[:, None]
    live = (cls < NUM_CLASSES) & (pixel < pixels)
    image = n * NUM_CLASSES * pixels
    last = pixel * NUM_CLASSES + cls
    plane = cls * pixels + pixel
    value = tl.load(in_ptr + image + (last if FROM_LAST else plane), mask=live)
    if SCALED:
        value = value.to(tl.float32) * tl.load(factor_ptr)
    tl.store(out_ptr + image + (last if TO_LAST else plane), value, mask=live)


def is_channels_last(map: Tensor) -> bool:
    """Tell whether a (N, C, h, w) map lies channels-last in memory and not also as planes."""
    return not map.is_contiguous() and map.is_contiguous(memory_format=torch.channels_last)


def to_planes(logits: Tensor) -> Tensor:
    """Return (N, C, h, w) logits as contiguous planes; themselves where they are already."""
    if logits.is_contiguous():
        return logits
    if not is_channels_last(logits):
        return logits.contiguous()
    out = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    _launch(logits, out, None, from_last=True, to_last=False)
    return out


@torch.library.custom_op("warpseg::scale_gradient", mutates_args=())
def scale_gradient(
    gradient: Tensor, factor: Tensor, dtype: torch.dtype, channels_last: bool
) -> Tensor:
    """Multiply float32 planes by a 0-d factor; return them in the logits' dtype and format."""
    out = _like(gradient, dtype, channels_last)
    _launch(gradient, out, factor, from_last=False, to_last=channels_last)
    return out


@scale_gradient.register_fake
def _(gradient: Tensor, factor: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
    return _like(gradient, dtype, channels_last)


def _like(gradient: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty_like(gradient, dtype=dtype, memory_format=memory_format)


def _launch(
    map: Tensor, out: Tensor, factor: Tensor | None, *, from_last: bool, to_last: bool
) -> None:
    batch, classes, height, width = map.shape
    block_c = triton.next_power_of_2(classes)
    block_p = max(1, 4096 // block_c)
    if map.numel():
        _planes_kernel[(batch * triton.cdiv(height * width, block_p),)](
            map,
            out,
            map if factor is None else factor,
            height * width,
            NUM_CLASSES=classes,
            FROM_LAST=from_last,
            TO_LAST=to_last,
            SCALED=factor is not None,
            BLOCK_C=block_c,
            BLOCK_P=block_p,
            num_warps=4,
            enable_fp_fusion=True,
        )


def compile_cases() -> list[CompileCase]:
    """List the copies of 19- and 21-class bfloat16 logits at stride 4, there and back."""
    cases = []
    for classes, back in ((19, False), (19, True), (21, False), (21, True)):
        moved = (4 + 2 if back else 2 + 2) * classes / 16
        cases.append(
            CompileCase(
                name=f"{'scale_gradient' if back else 'to_planes'}/C{classes}-s4",
                kernel=_planes_kernel,
                signature={
                    "in_ptr": "*fp32" if back else "*bf16",
                    "out_ptr": "*bf16",
                    "factor_ptr": "*fp32",
                    "pixels": "i32",
                },
                constexprs={
                    "NUM_CLASSES": classes,
                    "FROM_LAST": not back,
                    "TO_LAST": back,
                    "SCALED": back,
                    "BLOCK_C": 32,
                    "BLOCK_P": 128,
                },
                bytes_per_pixel=moved,
                floor_bytes_per_pixel=moved,
            )
        )
    return cases
