"""Stride-s logits between their grid points, inside a kernel: on the pixels of cells, or anywhere.

A cell is the square of s x s pixels between four neighbouring logits; there is one cell more than
there are logits along each axis. Lanes go along the cells of a row and hold all classes of one.
Logits come as rows, (N, h, C, STEP), and leave in base 2: times log2(e), for exp2.
"""

# Triton's decorators are not typed.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportFunctionMemberAccess=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportOperatorIssue=false

import triton
import triton.language as tl

from .math_triton import LOG2_E
from .rows import widen

# Lanes must go along the cells, so that each holds all classes of its own. The compiler orders them
# by the contiguity of pointers, and the columns that the cells read have none: this breaks the tie.
# Loads stay one element wide all the same, as no alignment is promised.
HINT = tl.constexpr(2)

# Logit of the classes that only fill a block: masked wherever they would count, but kept from
# overflowing on the way. float16 holds it.
ABSENT = tl.constexpr(-3e4)


@triton.jit
def live_rows(i, H, stride):
    """Return the first pixel of a cell of row i, and the range of its pixels within the map."""
    start = i * stride - (stride + 1) // 2
    first = tl.maximum(-start, 0)
    return start, first, tl.maximum(tl.minimum(H - start, stride), first)


@triton.jit
def row_ends(ptr, i, j, down, cls, h, w, C: tl.constexpr, STEP: tl.constexpr):
    """Interpolate one pixel row of the cells (i, j) at their left ends; return that and the slope.

    ptr: one image's rows; borders clamped; base-2 logits, (classes, cells) each.
    """
    upper = ptr + tl.maximum(i - 1, 0) * (C * STEP) + cls * STEP
    lower = ptr + tl.minimum(i, h - 1) * (C * STEP) + cls * STEP
    at_left = tl.max_contiguous(tl.minimum(tl.maximum(j - 1, 0), w - 1), HINT)[None, :]
    at_right = tl.max_contiguous(tl.minimum(j, w - 1), HINT)[None, :]
    real = cls < C
    up = (1.0 - down) * LOG2_E
    down = down * LOG2_E
    left = widen(tl.load(upper + at_left, real, other=ABSENT)) * up
    left += widen(tl.load(lower + at_left, real, other=ABSENT)) * down
    right = widen(tl.load(upper + at_right, real, other=ABSENT)) * up
    right += widen(tl.load(lower + at_right, real, other=ABSENT)) * down
    return left, right - left


@triton.jit
def _two_pixels(p, n, inverse):
    """Weights of the pixels p and p + 1 of one axis over three neighbouring logits.

    inverse: 1 / stride. Returns the three indices, clamped to n logits, the first pixel's two
    weights, the second's three.
    """
    at = (p + 0.5) * inverse - 0.5
    low = tl.floor(at)
    f = at - low
    after = (p + 1.5) * inverse - 0.5
    next_low = tl.floor(after)
    g = after - next_low
    moved = next_low > low
    i0 = tl.minimum(tl.maximum(low, 0.0), n - 1.0).to(tl.int32)
    i1 = tl.minimum(low + 1.0, n - 1.0).to(tl.int32)
    i2 = tl.minimum(low + 2.0, n - 1.0).to(tl.int32)
    v0 = tl.where(moved, 0.0, 1.0 - g)
    v1 = tl.where(moved, 1.0 - g, g)
    v2 = tl.where(moved, g, 0.0)
    return i0, i1, i2, 1.0 - f, f, v0, v1, v2


@triton.jit
def phase_of(p, inverse, stride):
    """Return the cell of pixel p (a whole number in float32) of one axis, and its step in it."""
    moved = p + (stride + 1) // 2
    cell = tl.floor((moved + 0.5) * inverse)
    return cell.to(tl.int32), (moved - cell * stride).to(tl.int32)


@triton.jit
def warped_probabilities(
    map_ptr, x, y, cls, H, W, stride, inverse, C: tl.constexpr, STEP: tl.constexpr
):
    """Blend the distributions of the four pixels around (x, y) in the map: (classes, cells).

    map_ptr: the teacher's probabilities of this image, (H, stride, C, STEP): the pixels of a row by
    their step in the cell, then by cell, so that the cells' neighbouring lanes read together.
    """
    x0 = tl.floor(x)
    y0 = tl.floor(y)
    wx = x - x0
    wy = y - y0
    # A neighbour without weight may lie outside of the map: the pixel itself stands for it. A mask
    # of lanes would make Triton before 3.9 exchange them between threads.
    cell, step = phase_of(x0, inverse, stride)
    after, next_step = phase_of(tl.minimum(x0 + 1.0, W - 1.0), inverse, stride)
    row: tl.constexpr = C * STEP
    line = y0.to(tl.int32) * stride
    next_line = tl.minimum(y0 + 1.0, H - 1.0).to(tl.int32) * stride
    # The hints stand where the sums are made: on what a function is given they are lost.
    at = tl.max_contiguous((line + step) * row + cell, HINT)[None, :]
    p = _tap(map_ptr, at, cls, C, STEP, (1.0 - wx) * (1.0 - wy))
    at = tl.max_contiguous((line + next_step) * row + after, HINT)[None, :]
    p += _tap(map_ptr, at, cls, C, STEP, wx * (1.0 - wy))
    at = tl.max_contiguous((next_line + step) * row + cell, HINT)[None, :]
    p += _tap(map_ptr, at, cls, C, STEP, (1.0 - wx) * wy)
    at = tl.max_contiguous((next_line + next_step) * row + after, HINT)[None, :]
    p += _tap(map_ptr, at, cls, C, STEP, wx * wy)
    return p


@triton.jit
def _tap(map_ptr, at, cls, C: tl.constexpr, STEP: tl.constexpr, weight):
    """Read all classes of one pixel per lane, times its weight."""
    value = tl.load(map_ptr + at + cls * STEP, cls < C, other=0.0)
    return value.to(tl.float32) * weight[None, :]


@triton.jit
def warped_logits(ptr, x, y, cls, h, w, inverse, C: tl.constexpr, STEP: tl.constexpr):
    """Blend the logits of the four pixels around (x, y): (classes, cells), base 2."""
    x0 = tl.floor(x)
    y0 = tl.floor(y)
    wx = x - x0
    wy = y - y0
    a0, a1, a2, u0, u1, v0, v1, v2 = _two_pixels(x0, w, inverse)
    b0, b1, b2, p0, p1, q0, q1, q2 = _two_pixels(y0, h, inverse)
    m0 = (1.0 - wx) * u0 + wx * v0
    m1 = (1.0 - wx) * u1 + wx * v1
    m2 = wx * v2
    real = cls < C
    z = (tl.zeros_like(cls) + tl.zeros_like(a0)[None, :]).to(tl.float32)
    for r in tl.static_range(3):
        row = b0 if r == 0 else (b1 if r == 1 else b2)
        share = wy * (q0 if r == 0 else (q1 if r == 1 else q2))
        if r < 2:
            share += (1.0 - wy) * (p0 if r == 0 else p1)
        line = row * (C * STEP)
        at0 = tl.max_contiguous(line + a0, HINT)[None, :]
        at1 = tl.max_contiguous(line + a1, HINT)[None, :]
        at2 = tl.max_contiguous(line + a2, HINT)[None, :]
        across = widen(tl.load(ptr + at0 + cls * STEP, real, other=ABSENT)) * m0[None, :]
        across += widen(tl.load(ptr + at1 + cls * STEP, real, other=ABSENT)) * m1[None, :]
        across += widen(tl.load(ptr + at2 + cls * STEP, real, other=ABSENT)) * m2[None, :]
        z += across * (share * LOG2_E)[None, :]
    return z
