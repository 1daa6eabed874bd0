"""A walk over the pixels of stride-s logits, for operations that need no gradient.

An operation gives one Triton function, `visit`, which the kernel calls for one pixel per lane:

    visit(z, largest, cls, target, inside, place, out_ptr, copy, ignore, NUM_CLASSES)

z: (classes, lanes) logits, with their `largest`; target: the mask's values; inside: the lanes that
are pixels; place: a pixel's index in a flat (N, H, W) map. It writes to `out_ptr`; `copy` numbers
the copy of the output that is the program's, where there are several. A program walks over one
strip of one row of cells (`cells.py`).
"""

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ... import IGNORE
from ..cells import SIZES, label_at, largest_logit, row_ends, tile, way
from ..compile import CompileCase, Work
from ..rows import to_rows
from ..upsample import stride_of

CLASSES = (19, 21, 81, 150, 171)
"""Class counts of the recipes, at which walks are compiled."""


@triton.jit(do_not_specialize=SIZES)
def _walk_kernel(
    row_ptr,
    mask_ptr,
    out_ptr,
    H,
    W,
    h,
    w,
    stride,
    ignore,
    strips,
    copies,
    VISIT: tl.constexpr,
    NUM_CLASSES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Visit the pixels of one strip of one row of cells."""
    pid = tl.program_id(0)
    n = (pid // ((h + 1) * strips)).to(tl.int64)
    k = pid // strips % (h + 1)
    lane = tl.arange(0, BLOCK_B)
    col = pid % strips * BLOCK_B + lane
    cls = tl.arange(0, BLOCK_C)[:, None]
    half = (stride + 1) // 2
    copy = pid % copies
    for dy in range(stride):
        # A block: the interpreter cannot mix scalars and blocks in a mask.
        y = k * stride - half + dy + lane * 0
        rows = row_ptr + n * NUM_CLASSES * h * w
        down = way(dy, stride, k, h)
        left, right = row_ends(rows, k, down, col, cls, h, w, NUM_CLASSES)
        slope = right - left
        for dx in range(stride):
            x = col * stride - half + dx
            inside = (x >= 0) & (x < W) & (y >= 0) & (y < H) & (col <= w)
            place = (n * H + y) * W + x
            target = label_at(mask_ptr + place, inside, ignore)
            z = left + slope * way(dx, stride, col, w)[None, :]
            largest = largest_logit(z, cls, NUM_CLASSES)
            VISIT(z, largest, cls, target, inside, place, out_ptr, copy, ignore, NUM_CLASSES)


def launch_walk(visit: Any, logits: Tensor, mask: Tensor, out: Tensor, copies: int = 1) -> None:
    """Visit all pixels of a mask (N, H, W), writing to `out`, which holds so many copies."""
    batch, classes, h, w = logits.shape
    if not mask.numel() or not logits.numel():
        return
    block_c, lanes, warps = tile(classes)
    strips = triton.cdiv(w + 1, lanes)
    constants: dict[str, Any] = {
        "VISIT": visit,
        "NUM_CLASSES": classes,
        "BLOCK_C": block_c,
        "BLOCK_B": lanes,
        "num_warps": warps,
    }
    height, width = mask.shape[1:]
    with torch.cuda.device_of(logits):
        _walk_kernel[(batch * (h + 1) * strips,)](
            to_rows(logits),
            mask.contiguous(),
            out,
            height,
            width,
            h,
            w,
            stride_of(logits, (height, width)),
            IGNORE,
            strips,
            copies,
            **constants,
        )


def walk_cases(name: str, visit: Any, out: str, written: float) -> list[CompileCase]:
    """List one operation's kernels at the recipes' class counts, for bfloat16 logits at stride 4.

    out: type of the output; written: its bytes per pixel.
    """
    cases = []
    for classes in CLASSES:
        block_c, lanes, warps = tile(classes)
        sizes = ("H", "W", "h", "w", "stride", "ignore", "strips", "copies")
        pointers = {"row_ptr": "*bf16", "mask_ptr": "*u8", "out_ptr": out}
        constexprs = {"NUM_CLASSES": classes, "BLOCK_C": block_c, "BLOCK_B": lanes}
        cases.append(
            CompileCase(
                name=f"{name}/C{classes}",
                kernel=_walk_kernel,
                signature=pointers | dict.fromkeys(sizes, "i32"),
                constexprs={"VISIT": visit, **constexprs},
                num_warps=warps,
                work=Work(8 * 768**2, 8 * 193 * triton.cdiv(193, lanes), (4, 4)),
                bytes_per_pixel=1 + written + 2 * classes / 16,
                floor_bytes_per_pixel=1 + written + 2 * classes / 16,
            )
        )
    return cases
