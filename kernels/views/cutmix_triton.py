"""CutMix in memory order: each element is read from the one image that it comes from."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compile import CompileCase
from ..layout import dense
from ..upsample import stride_of

# pyright: reportArgumentType=false, reportAssignmentType=false, reportFunctionMemberAccess=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

BLOCK = 1024


@triton.jit
def from_partner(box_ptr, n, y, x, BOXES: tl.constexpr):
    """Tell whether pixels (y, x) of image n lie in an odd number of its boxes."""
    odd = (y < 0) & (x < 0)
    for k in tl.static_range(BOXES):
        box = box_ptr + (n * BOXES + k) * 4
        rows = (y >= tl.load(box)) & (y < tl.load(box + 2))
        columns = (x >= tl.load(box + 1)) & (x < tl.load(box + 3))
        odd = odd ^ (rows & columns)
    return odd


@triton.jit
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
    BOXES: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BACKWARD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Mix one block of one image, in memory order; backward, `other` is who took from it."""
    n = tl.program_id(1).to(tl.int64)
    other = tl.load(other_ptr + n)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = element < C * H * W
    pixel = element // C if CHANNELS_LAST else element % (H * W)
    y = tl.minimum(pixel // W * stride + stride // 2, crop_height - 1)
    x = tl.minimum(pixel % W * stride + stride // 2, crop_width - 1)
    given = from_partner(box_ptr, n, y, x, BOXES)
    own = n * C * H * W + element
    theirs = other * C * H * W + element
    if BACKWARD:
        taken = from_partner(box_ptr, other, y, x, BOXES)
        value = tl.load(in_ptr + own, mask=live & (given == 0), other=0)
        value += tl.load(in_ptr + theirs, mask=live & taken, other=0)
    else:
        value = tl.load(in_ptr + tl.where(given, theirs, own), mask=live)
    tl.store(out_ptr + own, value, mask=live)


def _launch(map: Tensor, boxes: Tensor, other: Tensor, size: list[int], backward: bool) -> Tensor:
    map = dense(map)
    out = torch.empty_like(map)
    channels, (height, width) = map.shape[1] if map.ndim == 4 else 1, map.shape[-2:]
    # Triton has no pointers to bool.
    byte = torch.uint8
    grid = (triton.cdiv(channels * height * width, BLOCK), map.shape[0])
    if not out.numel():
        return out
    with torch.cuda.device_of(map):
        _cutmix_kernel[grid](
            *((map, out) if map.dtype != torch.bool else (map.view(byte), out.view(byte))),
            boxes,
            other,
            channels,
            height,
            width,
            *size,
            stride_of(map, (size[0], size[1])),
            BOXES=boxes.shape[1],
            CHANNELS_LAST=not map.is_contiguous(),
            BACKWARD=backward,
            BLOCK=BLOCK,
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
        # name, type, boxes, channels-last, backward, bytes per pixel
        ("images", "*u8", 4, True, False, 6.0),
        ("labels", "*u8", 1, False, False, 2.0),
        ("logits-C19-s4", "*bf16", 4, True, False, 4 * 19 / 16),
        ("gradient-C19-s4", "*bf16", 4, True, True, 4 * 19 / 16),
    ]
    sizes = ("C", "H", "W", "crop_height", "crop_width", "stride")
    return [
        CompileCase(
            name=f"cutmix/{name}",
            kernel=_cutmix_kernel,
            signature={
                "in_ptr": pointer,
                "out_ptr": pointer,
                "box_ptr": "*i32",
                "other_ptr": "*i64",
                **dict.fromkeys(sizes, "i32"),
            },
            constexprs={
                "BOXES": boxes,
                "CHANNELS_LAST": channels_last,
                "BACKWARD": backward,
                "BLOCK": BLOCK,
            },
            bytes_per_pixel=moved,
            floor_bytes_per_pixel=moved,
        )
        for name, pointer, boxes, channels_last, backward, moved in rows
    ]
