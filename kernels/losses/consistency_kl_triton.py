"""Triton kernels of `consistency_kl`: loss and student gradient straight from stride-s logits.

A cell is the square of s x s pixels between four neighbouring logits; there is one cell more than
there are logits along each axis, the outer ones cut by the border. A thread, or two and more with
many classes, owns a cell, walks over its pixels and keeps the gradient of its four corners in
registers. At each pixel it evaluates the spline, finds the four full-resolution pixels around the
source, and blends their teacher distributions. A first kernel stored these in half precision (in
float32 for float32 logits) for a few images, as many as the second-level cache holds: blending
reads four numbers a class, where interpolating and exponentiating logits takes twice the work.

The gradient takes no atomics and comes out the same every time. Cells of one colour, the parities
of their row and column, share no logit, and every logit is a corner of exactly one cell of each of
the four colours: so the first of four launches stores, and the others add in order. In coarse maps
a colour has few cells in a row: there all cells are one launch (`coarse/consistency.py`).

Logits come as rows, (N, h, C, STEP): lanes read neighbouring columns, and as STEP is known to the
compiler, the classes are constant offsets.

Bytes per pixel, C classes of b bytes at stride s: 4 C for the probabilities written and read, for
the most part in the cache, 1 for validity, (6 b + 4 + 7 * 4) C / s^2 for the logits, copied once,
and the gradient. The arithmetic takes longer: about 50 instructions per pixel and class.
"""

# Triton's decorators are not typed.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportFunctionMemberAccess=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportOperatorIssue=false

import triton
import triton.language as tl

from ..bilinear_triton import HINT, live_rows, row_ends, warped_logits, warped_probabilities
from ..math_triton import LN_2, log2
from ..views.tps_triton import spline_position, within_window

NO_WARP = tl.constexpr(0)
PROBABILITIES = tl.constexpr(1)
LOGITS = tl.constexpr(2)

SIZES = ["h", "w", "H", "W", "stride"]


@triton.jit
def _softmax(z, cls, C: tl.constexpr):
    """Return z - max, exp2 of that and its sum over the classes; 0 beyond them."""
    z -= tl.max(tl.where(cls < C, z, float("-inf")), 0)[None, :]
    e = tl.where(cls < C, tl.exp2(z), 0.0)
    return z, e, tl.sum(e, 0)


@triton.jit(do_not_specialize=SIZES)
def _teacher_kernel(
    teacher_ptr,
    map_ptr,
    h,
    w,
    H,
    W,
    stride,
    C: tl.constexpr,
    STEP: tl.constexpr,
    CLASSES: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Store the softmax of the upsampled teacher at every pixel, (N, H, stride, C, STEP)."""
    image = tl.program_id(2).to(tl.int64)
    i = tl.program_id(1)
    j = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    cls = tl.arange(0, CLASSES)[:, None]
    ptr = teacher_ptr + image * h * (C * STEP)
    offset = (1 - stride % 2) * 0.5
    inverse = 1.0 / stride
    start, first, last = live_rows(i, H, stride)
    for step in range(first, last):
        left, slope = row_ends(ptr, i, j, (step + offset) * inverse, cls, h, w, C, STEP)
        to = map_ptr + (image * H + start + step) * stride * (C * STEP)
        for across in range(stride):
            x = j * stride - (stride + 1) // 2 + across
            _, e, total = _softmax(left + slope * ((across + offset) * inverse), cls, C)
            at = to + across * (C * STEP) + tl.max_contiguous(j, HINT)[None, :] + cls * STEP
            p = (e * (1.0 / total)[None, :]).to(map_ptr.dtype.element_ty)
            tl.store(at, p, (cls < C) & ((x >= 0) & (x < W))[None, :])


@triton.jit
def _add(corner, ptr, cls, w, exists, C: tl.constexpr, colour):
    """Add one corner's gradient to its logits; the first colour stores it."""
    at = tl.max_contiguous(ptr[None, :] + cls * w, (1, HINT))
    mask = exists[None, :] & (cls < C)
    if colour > 0:
        corner += tl.load(at, mask, other=0.0)
    tl.store(at, corner, mask)


@triton.jit(do_not_specialize=["colour", "first", "batch", *SIZES])
def _consistency_kernel(
    student_ptr,
    teacher_ptr,
    map_ptr,
    valid_ptr,
    points_ptr,
    weights_ptr,
    gradient_ptr,
    loss_ptr,
    count_ptr,
    colour,
    first,
    batch,
    threshold,
    h,
    w,
    H,
    W,
    stride,
    C: tl.constexpr,
    STEP: tl.constexpr,
    CLASSES: tl.constexpr,
    CELLS: tl.constexpr,
    COUNT: tl.constexpr,
    TEACHER: tl.constexpr,
    HAS_VALID: tl.constexpr,
    THRESHOLD: tl.constexpr,
    SQUARED: tl.constexpr,
):
    """One program: CELLS cells of one colour of a row of cells, of the images from `first` on.

    map_ptr: the teacher's probabilities of these images. teacher_ptr: its logits, where those are
    read instead. Stores the sum of the loss over its pixels and their number, adds the gradient of
    that sum to gradient (N, h, C, w).
    """
    image = (first + tl.program_id(2)).to(tl.int64)
    i = tl.program_id(1) * 2 + colour // 2
    j = (tl.program_id(0) * CELLS + tl.arange(0, CELLS)) * 2 + colour % 2
    cls = tl.arange(0, CLASSES)[:, None]
    student_ptr += image * h * (C * STEP)
    teacher_ptr += image * h * (C * STEP)
    map_ptr += tl.program_id(2).to(tl.int64) * H * stride * (C * STEP)
    offset = (1 - stride % 2) * 0.5
    inverse = 1.0 / stride
    g00 = tl.zeros([CLASSES, CELLS], tl.float32)
    g01 = tl.zeros([CLASSES, CELLS], tl.float32)
    g10 = tl.zeros([CLASSES, CELLS], tl.float32)
    g11 = tl.zeros([CLASSES, CELLS], tl.float32)
    loss = tl.zeros([CELLS], tl.float32)
    count = tl.zeros([CELLS], tl.int32)
    start, begin, end = live_rows(i, H, stride)
    for step in range(begin, end):
        y = start + step
        fy = (step + offset) * inverse
        # Always 0, which the compiler cannot know: else it would hoist what does not depend on the
        # loop, the corners foremost, and run out of registers.
        nil = step >> 20
        left, slope = row_ends(student_ptr, i + nil, j + nil, fy, cls, h, w, C, STEP)
        if TEACHER == NO_WARP:
            t_left, t_slope = row_ends(teacher_ptr, i + nil, j + nil, fy, cls, h, w, C, STEP)
        for across in range(stride):
            fx = (across + offset) * inverse
            nil = across >> 20
            x = (j + nil) * stride - (stride + 1) // 2 + across
            live = (x >= 0) & (x < W)
            if HAS_VALID:
                live &= tl.load(valid_ptr + (image * H + y) * W + x, live, other=0) != 0
            if TEACHER == NO_WARP:
                _, e, total = _softmax(t_left + t_slope * fx, cls, C)
                p = e * (1.0 / total)[None, :]
            else:
                # A block, not a scalar: the interpreter cannot mix both in a mask.
                line = tl.zeros([CELLS], tl.float32) + y
                at_x, at_y = spline_position(
                    points_ptr + nil,
                    weights_ptr + nil,
                    image,
                    x.to(tl.float32),
                    line,
                    H,
                    W,
                    COUNT,
                )
                live &= within_window(at_x, at_y, points_ptr, image, H, W, False)
                at_x = tl.where(live, at_x, 0.0)
                at_y = tl.where(live, at_y, 0.0)
                if TEACHER == PROBABILITIES:
                    p = warped_probabilities(
                        map_ptr, at_x, at_y, cls, H, W, stride, inverse, C, STEP
                    )
                else:
                    z = warped_logits(teacher_ptr, at_x, at_y, cls, h, w, inverse, C, STEP)
                    _, e, total = _softmax(z, cls, C)
                    p = e * (1.0 / total)[None, :]
            count += live.to(tl.int32)
            if THRESHOLD:
                live &= tl.max(p, 0) > threshold
            z, e, total = _softmax(left + slope * fx, cls, C)
            if SQUARED:
                student = e * (1.0 / total)[None, :]
                difference = student - p
                term = tl.sum(difference * difference, 0)
                mean = tl.sum(student * difference, 0)
                g = student * (difference - mean[None, :]) * 2.0
            else:
                cross = tl.where(cls < C, p * (log2(p) - z), 0.0)
                term = (tl.sum(cross, 0) + log2(total)) * LN_2
                # A class that the student has masked out, and the teacher has not.
                term = tl.where(term > 1e30, float("inf"), term)
                g = e * (1.0 / total)[None, :] - p
            loss += tl.where(live, term, 0.0)
            if TEACHER == NO_WARP:
                # A product: a selection more takes the registers beyond what there is on sm_100.
                g = tl.where(cls < C, g * tl.where(live, 1.0, 0.0)[None, :], 0.0)
            else:
                g = tl.where((cls < C) & live[None, :], g, 0.0)
            g00 += g * ((1.0 - fx) * (1.0 - fy))
            g01 += g * (fx * (1.0 - fy))
            g10 += g * ((1.0 - fx) * fy)
            g11 += g * (fx * fy)
    to = (colour * batch + image) * tl.num_programs(1) + tl.program_id(1)
    to = to * tl.num_programs(0) + tl.program_id(0)
    tl.store(loss_ptr + to, tl.sum(loss, 0))
    tl.store(count_ptr + to, tl.sum(count, 0))
    # Where the border clamps a corner, its logit is the opposite corner.
    if i == 0:
        g10 += g00
        g11 += g01
    if i == h:
        g00 += g10
        g01 += g11
    at_left = (j == 0)[None, :]
    at_right = (j == w)[None, :]
    g01 += tl.where(at_left, g00, 0.0)
    g11 += tl.where(at_left, g10, 0.0)
    g00 += tl.where(at_right, g01, 0.0)
    g10 += tl.where(at_right, g11, 0.0)
    to = gradient_ptr + image * C * h * w + (i - 1) * C * w + j
    has_left = (j > 0) & (j <= w)
    has_right = j < w
    if (i > 0) & (i <= h):
        _add(g00, to - 1, cls, w, has_left, C, colour)
        _add(g01, to, cls, w, has_right, C, colour)
    if i < h:
        _add(g10, to + C * w - 1, cls, w, has_left, C, colour)
        _add(g11, to + C * w, cls, w, has_right, C, colour)
