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
    left = tl.load(upper + at_left, real, other=ABSENT).to(tl.float32) * up
    left += tl.load(lower + at_left, real, other=ABSENT).to(tl.float32) * down
    right = tl.load(upper + at_right, real, other=ABSENT).to(tl.float32) * up
    right += tl.load(lower + at_right, real, other=ABSENT).to(tl.float32) * down
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
def warped_probabilities(
    ptr, lse_ptr, x, y, live, cls, h, w, W, inverse, C: tl.constexpr, STEP: tl.constexpr
):
    """Blend the distributions of the four pixels around (x, y): (classes, cells), 0 if not live.

    ptr: the teacher's rows of this image; lse_ptr: its log-sum-exp (H, W), base 2.
    """
    x0 = tl.floor(x)
    y0 = tl.floor(y)
    wx = x - x0
    wy = y - y0
    a0, a1, a2, u0, u1, v0, v1, v2 = _two_pixels(x0, w, inverse)
    b0, b1, b2, p0, p1, q0, q1, q2 = _two_pixels(y0, h, inverse)
    # A neighbour without weight may lie outside of the image: an infinite log-sum-exp silences it.
    right = live & (wx > 0)
    below = live & (wy > 0)
    lse_ptr += y0.to(tl.int64) * W + x0.to(tl.int64)
    # Whether a class is real is known to the compiler, which drops what belongs to the others.
    real = cls < C
    zero = tl.zeros_like(cls).to(tl.float32)
    z00 = zero - tl.load(lse_ptr, live, other=1e30)[None, :]
    z01 = zero - tl.load(lse_ptr + 1, right, other=1e30)[None, :]
    z10 = zero - tl.load(lse_ptr + W, below, other=1e30)[None, :]
    z11 = zero - tl.load(lse_ptr + W + 1, right & below, other=1e30)[None, :]
    for r in tl.static_range(3):
        row = b0 if r == 0 else (b1 if r == 1 else b2)
        up = p0 if r == 0 else p1
        down = q0 if r == 0 else (q1 if r == 1 else q2)
        line = row * (C * STEP)
        at0 = tl.max_contiguous(line + a0, HINT)[None, :]
        at1 = tl.max_contiguous(line + a1, HINT)[None, :]
        at2 = tl.max_contiguous(line + a2, HINT)[None, :]
        t0 = tl.load(ptr + at0 + cls * STEP, real, other=ABSENT).to(tl.float32)
        t1 = tl.load(ptr + at1 + cls * STEP, real, other=ABSENT).to(tl.float32)
        t2 = tl.load(ptr + at2 + cls * STEP, real, other=ABSENT).to(tl.float32)
        here = t0 * u0[None, :] + t1 * u1[None, :]
        beside = t0 * v0[None, :] + t1 * v1[None, :] + t2 * v2[None, :]
        if r < 2:
            z00 += here * (up * LOG2_E)[None, :]
            z01 += beside * (up * LOG2_E)[None, :]
        z10 += here * (down * LOG2_E)[None, :]
        z11 += beside * (down * LOG2_E)[None, :]
    p = tl.exp2(z00) * ((1.0 - wx) * (1.0 - wy))[None, :]
    p += tl.exp2(z01) * (wx * (1.0 - wy))[None, :]
    p += tl.exp2(z10) * ((1.0 - wx) * wy)[None, :]
    p += tl.exp2(z11) * (wx * wy)[None, :]
    return tl.where(cls < C, p, 0.0)


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
        across = tl.load(ptr + at0 + cls * STEP, real, other=ABSENT).to(tl.float32) * m0[None, :]
        across += tl.load(ptr + at1 + cls * STEP, real, other=ABSENT).to(tl.float32) * m1[None, :]
        across += tl.load(ptr + at2 + cls * STEP, real, other=ABSENT).to(tl.float32) * m2[None, :]
        z += across * (share * LOG2_E)[None, :]
    return z
