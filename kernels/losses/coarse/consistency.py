"""The kernels of `consistency_kl` for coarse maps: all cells of an image in one line (`cells.py`).

Four launches for the colours, each of which finds few cells in a row, become one; the gradient of a
colour has a plane of its own.
"""

# Triton's decorators are not typed.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportFunctionMemberAccess=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportOperatorIssue=false

import triton
import triton.language as tl

from ...bilinear_triton import ABSENT, HINT, warped_logits, warped_probabilities
from ...math_triton import LN_2, LOG2_E, log2
from ...rows import widen
from ...views.tps_triton import spline_position, within_window
from ..consistency_kl_triton import NO_WARP, PROBABILITIES, _softmax

SIZES = ["h", "w", "H", "W", "stride", "groups", "parts"]


@triton.jit
def _ends(ptr, i, j, down, cls, h, w, C: tl.constexpr, STEP: tl.constexpr):
    """Interpolate one pixel row of the cells (i, j) at their left ends; return that and the slope.

    As `bilinear_triton.row_ends`, for cells of several rows.
    """
    upper = tl.minimum(tl.maximum(i - 1, 0), h - 1) * (C * STEP)
    lower = tl.minimum(i, h - 1) * (C * STEP)
    at_left = tl.maximum(j - 1, 0)
    at_right = tl.minimum(j, w - 1)
    real = cls < C
    up = (1.0 - down) * LOG2_E
    down = down * LOG2_E
    at = ptr + cls * STEP
    upper_left = tl.max_contiguous(upper + at_left, HINT)[None, :]
    upper_right = tl.max_contiguous(upper + at_right, HINT)[None, :]
    lower_left = tl.max_contiguous(lower + at_left, HINT)[None, :]
    lower_right = tl.max_contiguous(lower + at_right, HINT)[None, :]
    left = widen(tl.load(at + upper_left, real, other=ABSENT)) * up
    left += widen(tl.load(at + lower_left, real, other=ABSENT)) * down
    right = widen(tl.load(at + upper_right, real, other=ABSENT)) * up
    right += widen(tl.load(at + lower_right, real, other=ABSENT)) * down
    return left, right - left


@triton.jit(do_not_specialize=SIZES)
def coarse_teacher_kernel(
    teacher_ptr,
    map_ptr,
    h,
    w,
    H,
    W,
    stride,
    groups,
    parts,
    C: tl.constexpr,
    STEP: tl.constexpr,
    CLASSES: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Store the softmax of the upsampled teacher at every pixel, (N, H, stride, C, STEP)."""
    image = tl.program_id(1).to(tl.int64)
    part = tl.program_id(0) // groups
    cell = tl.program_id(0) % groups * CELLS + tl.arange(0, CELLS)
    i = cell // (w + 1)
    j = cell - i * (w + 1)
    cls = tl.arange(0, CLASSES)[:, None]
    ptr = teacher_ptr + image * h * (C * STEP)
    to = map_ptr + image * H * stride * (C * STEP)
    offset = (1 - stride % 2) * 0.5
    inverse = 1.0 / stride
    half = (stride + 1) // 2
    for step in range(stride * part // parts, stride * (part + 1) // parts):
        nil = step >> 20
        y = i * stride - half + step
        left, slope = _ends(ptr, i + nil, j + nil, (step + offset) * inverse, cls, h, w, C, STEP)
        line = y * (stride * C * STEP) + j
        for across in range(stride):
            x = j * stride - half + across
            _, e, total = _softmax(left + slope * ((across + offset) * inverse), cls, C)
            at = to + tl.max_contiguous(line + across * (C * STEP), HINT)[None, :] + cls * STEP
            p = (e * (1.0 / total)[None, :]).to(map_ptr.dtype.element_ty)
            live = (x >= 0) & (x < W) & (y >= 0) & (y < H)
            tl.store(at, p, (cls < C) & live[None, :])


@triton.jit(do_not_specialize=["first", "batch", *SIZES])
def coarse_consistency_kernel(
    student_ptr,
    teacher_ptr,
    map_ptr,
    valid_ptr,
    points_ptr,
    weights_ptr,
    gradient_ptr,
    loss_ptr,
    count_ptr,
    first,
    batch,
    threshold,
    h,
    w,
    H,
    W,
    stride,
    groups,
    parts,
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
    """One program: CELLS cells, or a part of their pixel rows, of the images from `first` on.

    map_ptr, teacher_ptr: as in `_consistency_kernel`. Stores the sum of the loss over its pixels
    and their number, and the gradient of that sum in the planes of its cells' colours.
    """
    image = (first + tl.program_id(1)).to(tl.int64)
    part = tl.program_id(0) // groups
    cell = tl.program_id(0) % groups * CELLS + tl.arange(0, CELLS)
    i = cell // (w + 1)
    j = cell - i * (w + 1)
    cls = tl.arange(0, CLASSES)[:, None]
    student_ptr += image * h * (C * STEP)
    teacher_ptr += image * h * (C * STEP)
    map_ptr += tl.program_id(1).to(tl.int64) * H * stride * (C * STEP)
    offset = (1 - stride % 2) * 0.5
    inverse = 1.0 / stride
    half = (stride + 1) // 2
    g00 = tl.zeros([CLASSES, CELLS], tl.float32)
    g01 = tl.zeros([CLASSES, CELLS], tl.float32)
    g10 = tl.zeros([CLASSES, CELLS], tl.float32)
    g11 = tl.zeros([CLASSES, CELLS], tl.float32)
    loss = tl.zeros([CELLS], tl.float32)
    count = tl.zeros([CELLS], tl.int32)
    for step in range(stride * part // parts, stride * (part + 1) // parts):
        fy = (step + offset) * inverse
        nil = step >> 20
        left, slope = _ends(student_ptr, i + nil, j + nil, fy, cls, h, w, C, STEP)
        if TEACHER == NO_WARP:
            t_left, t_slope = _ends(teacher_ptr, i + nil, j + nil, fy, cls, h, w, C, STEP)
        for across in range(stride):
            fx = (across + offset) * inverse
            nil = across >> 20
            x = (j + nil) * stride - half + across
            y = (i + nil) * stride - half + step
            live = (x >= 0) & (x < W) & (y >= 0) & (y < H)
            if HAS_VALID:
                live &= tl.load(valid_ptr + image * H * W + (y * W + x), live, other=0) != 0
            if TEACHER == NO_WARP:
                _, e, total = _softmax(t_left + t_slope * fx, cls, C)
                p = e * (1.0 / total)[None, :]
            else:
                at_x, at_y = spline_position(
                    points_ptr + nil,
                    weights_ptr + nil,
                    image,
                    x.to(tl.float32),
                    y.to(tl.float32),
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
    to = image * tl.num_programs(0) + tl.program_id(0)
    tl.store(loss_ptr + to, tl.sum(loss, 0))
    tl.store(count_ptr + to, tl.sum(count, 0))
    # Where the border clamps a corner, its logit is the opposite corner.
    top, bottom = (i == 0)[None, :], (i >= h)[None, :]
    g10 += tl.where(top, g00, 0.0)
    g11 += tl.where(top, g01, 0.0)
    g00 += tl.where(bottom, g10, 0.0)
    g01 += tl.where(bottom, g11, 0.0)
    at_left, at_right = (j == 0)[None, :], (j == w)[None, :]
    g01 += tl.where(at_left, g00, 0.0)
    g11 += tl.where(at_left, g10, 0.0)
    g00 += tl.where(at_right, g01, 0.0)
    g10 += tl.where(at_right, g11, 0.0)
    plane = batch.to(tl.int64) * C * h * w
    colour = (part * 4 + i % 2 * 2 + j % 2).to(tl.int64) * plane
    at = tl.max_contiguous((i - 1) * (C * w) + j + colour, HINT)[None, :]
    at = gradient_ptr + image * C * h * w + at + cls * w
    above, below = (i > 0) & (i <= h), i < h
    real = cls < C
    tl.store(at - 1, g00, real & (above & (j > 0))[None, :])
    tl.store(at, g01, real & (above & (j < w))[None, :])
    tl.store(at + C * w - 1, g10, real & (below & (j > 0))[None, :])
    tl.store(at + C * w, g11, real & (below & (j < w))[None, :])
