"""A step of a ladder: enlarge a coarse map to the size of a finer one, and add the two.

    y = b + up(a)        dL/db = g,  dL/da = up^T(g)

`up` is bilinear with half-pixel centres (`F.interpolate`, `align_corners=False`). The enlarged map
is rounded to the maps' dtype before it is added, as where PyTorch writes it out. Bytes an element
of b bytes: 2 b and the coarse map, instead of 4 b; the floor.
"""

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from ..compile import CompileCase, Work
from .fusing import fused

BLOCK_W = 16


def resize_add_reference(coarse: Tensor, fine: Tensor) -> Tensor:
    """Return the finer map plus the coarse one, enlarged to its size."""
    size = fine.shape[-2:]
    return F.interpolate(coarse, size=size, mode="bilinear", align_corners=False) + fine


@triton.jit
def source_of(place, cells, pixels):
    """Return where the pixels at `place`, of as many along an axis, lie between its cells: the cell
    before, the one behind, and the way from the first to the second."""
    at = tl.maximum((place + 0.5) * (cells.to(tl.float32) / pixels.to(tl.float32)) - 0.5, 0.0)
    low = tl.minimum(at.to(tl.int32), cells - 1)
    return low, tl.minimum(low + 1, cells - 1), at - low


@triton.jit
def enlarged(ptr, image, y, x, c, live, h, w, H, W, C: tl.constexpr):
    """Return a channels-last map (N, C, h, w), enlarged to H x W, at row y and columns x."""
    top, bottom, down = source_of(y, h, H)
    left, right, across = source_of(x, w, W)
    left, right = left[:, None] * C + c, right[:, None] * C + c
    across = across[:, None]
    upper = ptr + (image * h + top) * w * C
    lower = ptr + (image * h + bottom) * w * C
    above = tl.load(upper + left, live, other=0.0).to(tl.float32) * (1 - across)
    above += tl.load(upper + right, live, other=0.0).to(tl.float32) * across
    below = tl.load(lower + left, live, other=0.0).to(tl.float32) * (1 - across)
    below += tl.load(lower + right, live, other=0.0).to(tl.float32) * across
    return above * (1 - down) + below * down


@triton.jit(do_not_specialize=["h", "w", "H", "W"])
def _resize_add_kernel(
    coarse_ptr,
    fine_ptr,
    out_ptr,
    h,
    w,
    H,
    W,
    C: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program: some columns of one row of one image, all channels."""
    line = tl.program_id(1).to(tl.int64)
    x = tl.program_id(0) * BLOCK_W + tl.arange(0, BLOCK_W)
    c = tl.arange(0, BLOCK_C)[None, :]
    live = (x < W)[:, None] & (c < C)
    kind = out_ptr.dtype.element_ty
    y = (line % H).to(tl.int32)
    value = enlarged(coarse_ptr, line // H, y, x, c, live, h, w, H, W, C).to(kind).to(tl.float32)
    at = (line * W + x[:, None]) * C + c
    value += tl.load(fine_ptr + at, live, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, value.to(kind), live)


@torch.library.custom_op("warpseg::resize_add", mutates_args=())
def resize_add_op(coarse: Tensor, fine: Tensor) -> Tensor:
    """Return the finer map plus the coarse one, enlarged to its size; all channels-last."""
    batch, channels, H, W = fine.shape
    out = torch.empty_like(fine)
    if out.numel():
        with torch.cuda.device_of(out):
            _resize_add_kernel[(triton.cdiv(W, BLOCK_W), batch * H)](
                coarse,
                fine,
                out,
                *coarse.shape[-2:],
                H,
                W,
                C=channels,
                BLOCK_W=BLOCK_W,
                BLOCK_C=triton.next_power_of_2(channels),
            )
    return out


@resize_add_op.register_fake
def _(coarse: Tensor, fine: Tensor) -> Tensor:
    return torch.empty_like(fine)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.sizes = inputs[0].shape, output.shape[-2:]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
    shape, size = ctx.sizes
    slope = torch.ops.aten.upsample_bilinear2d_backward(gradient, list(size), list(shape), False)
    return slope, gradient


resize_add_op.register_autograd(_backward, setup_context=_setup)


def resize_add(coarse: Tensor, fine: Tensor) -> Tensor:
    """Return `fine` (N, C, H, W) plus `coarse` (N, C, h, w), enlarged bilinearly to its size.

    Any float dtype. Gradients: to both. Raises ValueError where batches or channels differ.
    """
    if coarse.shape[:2] != fine.shape[:2]:
        raise ValueError(
            "resize_add takes maps of as many images and channels; got "
            f"{tuple(coarse.shape)} and {tuple(fine.shape)}"
        )
    if fused(coarse, fine) and fine.shape[2] * len(fine) < 2**16:  # rows are a grid's second axis
        return resize_add_op(coarse, fine)
    return resize_add_reference(coarse, fine)


def compile_cases() -> list[CompileCase]:
    """List the last step of SwiftNet's ladder, 128 bfloat16 channels from stride 8 to 4."""
    pointers = dict.fromkeys(("coarse_ptr", "fine_ptr", "out_ptr"), "*bf16")
    per_pixel = 2 * 128 / 16
    return [
        CompileCase(
            name="resize_add/C128",
            kernel=_resize_add_kernel,
            signature={**pointers, **dict.fromkeys(("h", "w", "H", "W"), "i32")},
            constexprs={"C": 128, "BLOCK_W": BLOCK_W, "BLOCK_C": 128},
            work=Work(8 * 768**2, 8 * 192 * triton.cdiv(192, BLOCK_W)),
            bytes_per_pixel=2.25 * per_pixel,
            floor_bytes_per_pixel=2.25 * per_pixel,
        )
    ]
