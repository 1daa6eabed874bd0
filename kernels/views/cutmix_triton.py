"""CutMix in memory order: each element is read from the one image that it comes from."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compile import CompileCase, Work
from ..layout import check_indices, dense
from ..upsample import stride_of

# pyright: reportArgumentType=false, reportAssignmentType=false, reportFunctionMemberAccess=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

BLOCKS = (1024, 512, 256, 128)
SIZES = ["C", "H", "W", "crop_height", "crop_width", "stride", "blocks"]


@triton.jit
def from_partner(box_ptr, n, y, x, BOXES: tl.constexpr):
    """Tell whether pixels x of row y of image n lie in an odd number of its boxes."""
    odd = x < -1
    for k in tl.static_range(BOXES):
        box = box_ptr + (n * BOXES + k) * 4
        left = tl.load(box + 1)
        # Beside the row a box is empty: decided once, for all of the row's pixels.
        crossed = (y >= tl.load(box)) & (y < tl.load(box + 2))
        right = tl.where(crossed, tl.load(box + 3), left)
        odd = odd ^ ((x >= left) & (x < right))
    return odd


@triton.jit(do_not_specialize=["box_ptr", "other_ptr", *SIZES])
def _cutmix_kernel(
    in_ptr,
    out_ptr,
    box_ptr,
    other_ptr,
    C,
    H,
    W,
    crop_height,
    crop_width,
    stride,
    blocks,
    CHANNELS: tl.constexpr,
    BOXES: tl.constexpr,
    BACKWARD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Mix one block of one row of one image, in memory order; backward, `other` took from it.

    A row holds CHANNELS values a pixel: all of a channels-last map's, one of a plane's.
    """
    n = tl.program_id(1).to(tl.int64)
    other = tl.load(other_ptr + n)
    row = tl.program_id(0) // blocks
    at = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    live = at < W * CHANNELS
    y = tl.minimum(row % H * stride + stride // 2, crop_height - 1)
    x = tl.minimum(at // CHANNELS * stride + stride // 2, crop_width - 1)
    given = from_partner(box_ptr, n, y, x, BOXES)
    image = (C * H).to(tl.int64) * W
    line = row.to(tl.int64) * W * CHANNELS
    own = in_ptr + n * image + line
    theirs = in_ptr + other * image + line
    if BACKWARD:
        taken = from_partner(box_ptr, other, y, x, BOXES)
        value = tl.load(own + at, mask=live & (given == 0), other=0).to(tl.float32)
        value += tl.load(theirs + at, mask=live & taken, other=0).to(tl.float32)
    else:
        value = tl.load(tl.where(given, theirs, own) + at, mask=live)
    to = out_ptr + n * image + line + at
    tl.store(to, value.to(out_ptr.dtype.element_ty), mask=live)


def _launch(map: Tensor, boxes: Tensor, other: Tensor, size: list[int], backward: bool) -> Tensor:
    map = dense(map)
    out = torch.empty_like(map)
    channels, (height, width) = map.shape[1] if map.ndim == 4 else 1, map.shape[-2:]
    together = 1 if map.is_contiguous() else channels
    length = width * together
    # What begins a program takes the time of a hundred elements.
    block = min(BLOCKS, key=lambda block: triton.cdiv(length, block) * (block + 100))
    blocks = triton.cdiv(length, block)
    if not out.numel():
        return out
    check_indices(length, blocks * height * (channels // together))
    # Triton has no pointers to bool.
    byte = torch.uint8
    with torch.cuda.device_of(map):
        _cutmix_kernel[(blocks * height * (channels // together), map.shape[0])](
            *((map, out) if map.dtype != torch.bool else (map.view(byte), out.view(byte))),
            boxes,
            other,
            channels,
            height,
            width,
            *size,
            stride_of(map, (size[0], size[1])),
            blocks,
            CHANNELS=together,
            BOXES=boxes.shape[1],
            BACKWARD=backward,
            BLOCK=block,
        )
    return out


@torch.library.custom_op("warpseg::cutmix", mutates_args=())
def cutmix_op(
    map: Tensor, boxes: Tensor, partner: Tensor, inverse: Tensor, size: list[int]
) -> Tensor:
    """Mix maps by boxes; `inverse` is for the gradient."""
    return _launch(map, boxes, partner, size, backward=False)


@torch.library.custom_op("warpseg::cutmix_backward", mutates_args=())
def cutmix_backward_op(gradient: Tensor, boxes: Tensor, inverse: Tensor, size: list[int]) -> Tensor:
    """Return the gradient of the maps: what was kept, and what the taker got."""
    return _launch(gradient, boxes, inverse, size, backward=True)


@cutmix_op.register_fake
def _(map: Tensor, *_: object) -> Tensor:
    return torch.empty_like(dense(map))


@cutmix_backward_op.register_fake
def _(gradient: Tensor, *_: object) -> Tensor:
    return torch.empty_like(dense(gradient))


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _, boxes, _, inverse, size = inputs
    ctx.save_for_backward(boxes, inverse)
    ctx.size = size


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
    boxes, inverse = ctx.saved_tensors
    return cutmix_backward_op(gradient, boxes, inverse, ctx.size), None, None, None, None


cutmix_op.register_autograd(_backward, setup_context=_save)


def compile_cases() -> list[CompileCase]:
    """List the kernel on the maps of the recipes: images, labels, logits and their gradient."""
    rows = [
        # name, type, boxes, channels together, programs, backward, bytes per pixel
        ("images", "*bf16", 4, 3, 16 * 512 * 3, False, 12.0),
        ("labels", "*u8", 1, 1, 16 * 512, False, 2.0),
        ("logits-C19-s4", "*bf16", 4, 19, 16 * 128 * 5, False, 4 * 19 / 16),
        ("gradient-C19-s4", "*bf16", 4, 19, 16 * 128 * 5, True, 4 * 19 / 16),
    ]
    return [
        CompileCase(
            name=f"cutmix/{name}",
            kernel=_cutmix_kernel,
            signature={
                "in_ptr": pointer,
                "out_ptr": pointer,
                "box_ptr": "*i32",
                "other_ptr": "*i64",
                **dict.fromkeys(SIZES, "i32"),
            },
            constexprs={
                "CHANNELS": channels,
                "BOXES": boxes,
                "BACKWARD": backward,
                "BLOCK": BLOCKS[0],
            },
            work=Work(16 * 512 * 1024, programs),
            bytes_per_pixel=moved,
            floor_bytes_per_pixel=moved,
        )
        for name, pointer, boxes, channels, programs, backward, moved in rows
    ]
