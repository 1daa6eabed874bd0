"""Mark the pixels of a window, (N, H, W) bool: one launch where comparisons take nine.

Bytes per pixel: one written, the floor.
"""

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportGeneralTypeIssues=false

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .compile import CompileCase, Work
from .dispatch import use_op

BLOCK = 1024


def window_mask_reference(window: Tensor, size: Sequence[int]) -> Tensor:
    """Compare rows and columns with the edges."""
    top, left, bottom, right = window[:, :, None, None].unbind(1)
    row = torch.arange(size[0], device=window.device)[None, :, None]
    column = torch.arange(size[1], device=window.device)[None, None, :]
    return (row >= top) & (row < bottom) & ((column >= left) & (column < right))


@triton.jit(do_not_specialize=["H", "W"])
def _window_kernel(window_ptr, out_ptr, H, W, BLOCK: tl.constexpr):
    """One program: some pixels of one image, row after row."""
    image = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, column = at // W, at % W
    edge = window_ptr + image * 4
    shown = (row >= tl.load(edge)) & (row < tl.load(edge + 2))
    shown &= (column >= tl.load(edge + 1)) & (column < tl.load(edge + 3))
    tl.store(out_ptr + image * H * W + at, shown, at < H * W)


@torch.library.custom_op("warpseg::window_mask", mutates_args=())
def window_mask_op(window: Tensor, size: Sequence[int]) -> Tensor:
    """Return `window_mask`."""
    height, width = size
    window = window.contiguous()
    out = torch.empty((len(window), height, width), dtype=torch.bool, device=window.device)
    if out.numel():
        with torch.cuda.device_of(out):
            _window_kernel[(triton.cdiv(height * width, BLOCK), len(window))](
                window, out.view(torch.uint8), height, width, BLOCK=BLOCK
            )
    return out


@window_mask_op.register_fake
def _(window: Tensor, size: Sequence[int]) -> Tensor:
    return torch.empty((len(window), *size), dtype=torch.bool, device=window.device)


def window_mask(window: Tensor, size: Sequence[int]) -> Tensor:
    """Mark the pixels inside `window` (N, 4) [top, left, bottom, right): (N, H, W) bool.

    window: integers. Raises ValueError for other shapes.
    """
    if window.ndim != 2 or window.shape[1] != 4:
        raise ValueError(f"window must be (N, 4); got {tuple(window.shape)}")
    if use_op(window):
        return window_mask_op(window, tuple(size))
    return window_mask_reference(window, size)


def compile_cases() -> list[CompileCase]:
    """List the mask of 512 x 1024 crops."""
    return [
        CompileCase(
            name="window_mask",
            kernel=_window_kernel,
            signature={"window_ptr": "*i32", "out_ptr": "*u8", "H": "i32", "W": "i32"},
            constexprs={"BLOCK": BLOCK},
            work=Work(16 * 512 * 1024, 16 * 512),
            bytes_per_pixel=1,
            floor_bytes_per_pixel=1,
        )
    ]
