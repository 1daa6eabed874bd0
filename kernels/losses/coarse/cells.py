"""The cell kernel of coarse maps: a lane takes any cell, whole or a part of its pixel rows.

A map at stride 8 or 16 has few columns. Strips of `..cells` then leave lanes without a cell, and
filling a device takes segments so short that half of their rows are computed twice. Here cells
stand in one line, row after row, and a program takes the next BLOCK_B of it, so that only the last
program of an image has lanes to spare. Where these are too few programs, each takes a part of its
cells' pixel rows.

Cells of one colour, the parities of their row and column, share no logit, and every logit is a
corner of exactly one cell of each of the four colours: so the gradient has a plane for each colour
(and part), of which every number is written once, without a word between programs and without a
cell computed twice. The planes are summed in order. They hold 16 parts C / s^2 float32 bytes a
pixel where a loss keeps 4 C / s^2: little at a coarse stride, far too much at stride 4.
"""

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

import triton
import triton.language as tl

from ...bilinear_triton import HINT
from ...cells import HIDE, exponentials, hidden, label_at, largest_logit
from ...rows import widen

SIZES = ["H", "W", "h", "w", "stride", "ignore", "groups", "parts"]
"""Arguments that Triton must not specialise on, as those of `..cells`."""


@triton.jit
def cell_of(groups, parts, w, BLOCK_B: tl.constexpr):
    """Return image (64 bits) and part of a program, row and column of its cells."""
    pid = tl.program_id(0)
    n = (pid // (groups * parts)).to(tl.int64)
    cell = pid % groups * BLOCK_B + tl.arange(0, BLOCK_B)
    k = cell // (w + 1)
    return n, pid // groups % parts, k, cell - k * (w + 1)


@triton.jit
def corner_offsets(k, col, h, line):
    """Return where the right one of a cell's upper and of its lower logits lies in the image.

    The left ones lie one before. line: numbers from a row of logits to the next.
    """
    # HINT: see there. Columns go along the lanes, but for the step from row to row.
    upper = tl.max_contiguous(tl.minimum(tl.maximum(k - 1, 0), h - 1) * line + col, HINT)
    lower = tl.max_contiguous(tl.minimum(k, h - 1) * line + col, HINT)
    return upper[None, :], lower[None, :]


@triton.jit
def down_cell(step, stride, k, h):
    """Return how far pixel row `step` lies between the upper and lower logits of cells of row k."""
    inner = (step + (1 - stride % 2) * 0.5) * (1.0 / stride)
    return tl.where(k == 0, 1.0, tl.where(k >= h, 0.0, inner))


@triton.jit
def across_cell(step, stride, col, w):
    """Return how far pixel `step` lies between the left and right logits of cells of a column."""
    return down_cell(step, stride, col, w)


@triton.jit
def row_ends(rows, upper, lower, step, down, col, cls, w, NUM_CLASSES: tl.constexpr):
    """Interpolate the logits of one pixel row at the left and right ends of the cells."""
    # Always 0, which the compiler cannot know: else it would load the corners before the loop, and
    # run out of registers.
    nil = step >> 20
    upper = rows + (upper + nil) + cls * w
    lower = rows + (lower + nil) + cls * w
    at_left = (cls < NUM_CLASSES) & (col >= 1)[None, :]
    at_right = (cls < NUM_CLASSES) & (col < w)[None, :]
    down = down[None, :]
    left = widen(tl.load(upper - 1, mask=at_left, other=0.0)) * (1 - down)
    left += widen(tl.load(lower - 1, mask=at_left, other=0.0)) * down
    right = widen(tl.load(upper, mask=at_right, other=0.0)) * (1 - down)
    right += widen(tl.load(lower, mask=at_right, other=0.0)) * down
    return left, right


@triton.jit
def store_corners(image_ptr, plane, corners, part, k, col, cls, h, w, NUM_CLASSES: tl.constexpr):
    """Write the gradient of the cells' corners, upper ones first, to the planes of their colours.

    plane: numbers from a plane to the next.
    """
    line = NUM_CLASSES * w
    colour = (part * 4 + k % 2 * 2 + col % 2).to(tl.int64)
    at = tl.max_contiguous(colour * plane + ((k - 1) * line + col), HINT)[None, :]
    out = image_ptr + at + cls * w
    above, below = (k >= 1) & (k <= h), k < h
    real = cls < NUM_CLASSES
    tl.store(out - 1, corners[0], mask=real & (above & (col >= 1))[None, :])
    tl.store(out, corners[1], mask=real & (above & (col < w))[None, :])
    tl.store(out + line - 1, corners[2], mask=real & (below & (col >= 1))[None, :])
    tl.store(out + line, corners[3], mask=real & (below & (col < w))[None, :])


@triton.jit(do_not_specialize=SIZES)
def coarse_loss_kernel(
    row_ptr,
    target_ptr,
    map_ptr,
    table_ptr,
    gradient_ptr,
    total_ptr,
    first_parameter,
    second_parameter,
    third_parameter,
    H,
    W,
    h,
    w,
    stride,
    ignore,
    groups,
    parts,
    PIXEL: tl.constexpr,
    OPTION: tl.constexpr,
    NUM_CLASSES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Sum loss and counts of one program's cells; write their part of the gradient."""
    n, part, k, col = cell_of(groups, parts, w, BLOCK_B)
    cls = tl.arange(0, BLOCK_C)[:, None]
    real = cls < NUM_CLASSES
    half = (stride + 1) // 2
    upper, lower = corner_offsets(k, col, h, NUM_CLASSES * w)
    image = n * NUM_CLASSES * h * w
    offset = n * H * W
    zero = tl.zeros([BLOCK_C, BLOCK_B], tl.float32)
    upper_left, upper_right, lower_left, lower_right = zero, zero, zero, zero
    losses = tl.zeros([BLOCK_B], tl.float32)
    kepts, firsts, seconds, thirds = losses, losses, losses, losses
    for step in range(stride * part // parts, stride * (part + 1) // parts):
        down = down_cell(step, stride, k, h)
        y = k * stride - half + step
        left, right = row_ends(row_ptr + image, upper, lower, step, down, col, cls, w, NUM_CLASSES)
        slope = right - left
        for dx in range(stride):
            x = col * stride - half + dx
            across = across_cell(dx, stride, col, w)
            inside = (x >= 0) & (x < W) & (y >= 0) & (y < H)
            place = offset + (y * W + x)
            target = label_at(target_ptr + place, inside, ignore)
            known = (target >= 0) & (target < NUM_CLASSES)
            kept = inside & (target != ignore)
            z = left + slope * across[None, :]
            largest = largest_logit(z, cls, NUM_CLASSES)
            e = exponentials(z, largest, cls, NUM_CLASSES)
            total = tl.sum(e, 0)
            loss, factor, target, kept, one, two, three = PIXEL(
                z,
                largest,
                total,
                cls,
                target,
                kept,
                n,
                place,
                map_ptr,
                table_ptr,
                first_parameter,
                second_parameter,
                third_parameter,
                NUM_CLASSES,
                OPTION,
            )
            factor = tl.where(kept & known, factor, 0.0)
            g = e * (factor / total)[None, :]
            again = hidden(target, dx) if HIDE else target
            g -= tl.where(cls == again[None, :], factor[None, :], 0.0)
            share = across * down
            upper_left += tl.where(real, g * (1 - across - down + share)[None, :], 0.0)
            upper_right += tl.where(real, g * (across - share)[None, :], 0.0)
            lower_left += tl.where(real, g * (down - share)[None, :], 0.0)
            lower_right += tl.where(real, g * share[None, :], 0.0)
            losses += tl.where(kept, tl.where(known, loss, float("nan")), 0.0)
            kepts += tl.where(kept, 1.0, 0.0)
            firsts += tl.where(inside, one, 0.0)
            seconds += tl.where(inside, two, 0.0)
            thirds += tl.where(inside, three, 0.0)
    corners = (upper_left, upper_right, lower_left, lower_right)
    pid, programs = tl.program_id(0), tl.num_programs(0)
    plane = (programs // (groups * parts)).to(tl.int64) * NUM_CLASSES * h * w
    store_corners(gradient_ptr + image, plane, corners, part, k, col, cls, h, w, NUM_CLASSES)
    tl.store(total_ptr + pid, tl.sum(losses, 0))
    tl.store(total_ptr + programs + pid, tl.sum(kepts, 0))
    tl.store(total_ptr + 2 * programs + pid, tl.sum(firsts, 0))
    tl.store(total_ptr + 3 * programs + pid, tl.sum(seconds, 0))
    tl.store(total_ptr + 4 * programs + pid, tl.sum(thirds, 0))
