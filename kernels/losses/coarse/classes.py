"""The kernels of `dice.py` for coarse maps: sums of the classes, and their slopes' gradient."""

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

import triton
import triton.language as tl

from ...cells import exponentials, label_at, largest_logit
from .cells import SIZES, across_cell, cell_of, corner_offsets, down_cell, row_ends, store_corners


@triton.jit(do_not_specialize=SIZES)
def coarse_sums_kernel(
    row_ptr,
    mask_ptr,
    sum_ptr,
    H,
    W,
    h,
    w,
    stride,
    ignore,
    groups,
    parts,
    NUM_CLASSES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Sum the classes of the pixels of one program's cells."""
    n, part, k, col = cell_of(groups, parts, w, BLOCK_B)
    cls = tl.arange(0, BLOCK_C)[:, None]
    half = (stride + 1) // 2
    upper, lower = corner_offsets(k, col, h, NUM_CLASSES * w)
    rows = row_ptr + n * NUM_CLASSES * h * w
    offset = n * H * W
    overlaps = tl.zeros([BLOCK_C, BLOCK_B], tl.float32)
    probs, trues = overlaps, overlaps
    for step in range(stride * part // parts, stride * (part + 1) // parts):
        down = down_cell(step, stride, k, h)
        y = k * stride - half + step
        left, right = row_ends(rows, upper, lower, step, down, col, cls, w, NUM_CLASSES)
        slope = right - left
        for dx in range(stride):
            x = col * stride - half + dx
            inside = (x >= 0) & (x < W) & (y >= 0) & (y < H)
            target = label_at(mask_ptr + offset + (y * W + x), inside, ignore)
            kept = inside & (target != ignore)
            z = left + slope * across_cell(dx, stride, col, w)[None, :]
            e = exponentials(z, largest_logit(z, cls, NUM_CLASSES), cls, NUM_CLASSES)
            known = (target >= 0) & (target < NUM_CLASSES)
            share = tl.where(known, 1.0 / tl.sum(e, 0), float("nan"))
            prob = tl.where(kept[None, :], e * share[None, :], 0.0)
            here = (cls == target[None, :]) & kept[None, :]
            probs += prob
            overlaps += tl.where(here, prob, 0.0)
            trues += tl.where(here, 1.0, 0.0)
    ids = tl.arange(0, BLOCK_C)
    out = sum_ptr + tl.program_id(0) * 3 * NUM_CLASSES + ids
    tl.store(out, tl.sum(overlaps, 1), mask=ids < NUM_CLASSES)
    tl.store(out + NUM_CLASSES, tl.sum(probs, 1), mask=ids < NUM_CLASSES)
    tl.store(out + 2 * NUM_CLASSES, tl.sum(trues, 1), mask=ids < NUM_CLASSES)


@triton.jit(do_not_specialize=SIZES)
def coarse_slopes_kernel(
    row_ptr,
    mask_ptr,
    slope_ptr,
    gradient_ptr,
    H,
    W,
    h,
    w,
    stride,
    ignore,
    groups,
    parts,
    NUM_CLASSES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Write the gradient of the corners of one program's cells.

    slope_ptr: (2, C), dL/dP and dL/dI of each class.
    """
    n, part, k, col = cell_of(groups, parts, w, BLOCK_B)
    cls = tl.arange(0, BLOCK_C)[:, None]
    half = (stride + 1) // 2
    upper, lower = corner_offsets(k, col, h, NUM_CLASSES * w)
    image = n * NUM_CLASSES * h * w
    offset = n * H * W
    every = tl.load(slope_ptr + cls, mask=cls < NUM_CLASSES, other=0.0)
    zero = tl.zeros([BLOCK_C, BLOCK_B], tl.float32)
    upper_left, upper_right, lower_left, lower_right = zero, zero, zero, zero
    for step in range(stride * part // parts, stride * (part + 1) // parts):
        down = down_cell(step, stride, k, h)
        y = k * stride - half + step
        left, right = row_ends(row_ptr + image, upper, lower, step, down, col, cls, w, NUM_CLASSES)
        slope = right - left
        for dx in range(stride):
            x = col * stride - half + dx
            across = across_cell(dx, stride, col, w)
            inside = (x >= 0) & (x < W) & (y >= 0) & (y < H)
            target = label_at(mask_ptr + offset + (y * W + x), inside, ignore)
            known = (target >= 0) & (target < NUM_CLASSES)
            kept = inside & (target != ignore) & known
            z = left + slope * across[None, :]
            e = exponentials(z, largest_logit(z, cls, NUM_CLASSES), cls, NUM_CLASSES)
            prob = e * tl.where(kept, 1.0 / tl.sum(e, 0), 0.0)[None, :]
            own = tl.load(slope_ptr + NUM_CLASSES + target, mask=kept, other=0.0)
            rate = every + tl.where(cls == target[None, :], own[None, :], 0.0)
            g = prob * rate
            g -= prob * tl.sum(g, 0)[None, :]
            share = across * down
            # 0 beyond the classes, as exp(z) is.
            upper_left += g * (1 - across - down + share)[None, :]
            upper_right += g * (across - share)[None, :]
            lower_left += g * (down - share)[None, :]
            lower_right += g * share[None, :]
    corners = (upper_left, upper_right, lower_left, lower_right)
    plane = (tl.num_programs(0) // (groups * parts)).to(tl.int64) * NUM_CLASSES * h * w
    store_corners(gradient_ptr + image, plane, corners, part, k, col, cls, h, w, NUM_CLASSES)
