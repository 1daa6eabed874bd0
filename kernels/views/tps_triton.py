"""Evaluate a thin plate spline in registers: what every warping kernel calls per pixel."""

# Triton's decorators are not typed.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportFunctionMemberAccess=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from ..math_triton import LN_2, log2


@triton.jit
def spline_position(points_ptr, weights_ptr, image, x, y, H, W, COUNT: tl.constexpr):
    """Return the source position, in pixels, of the warped pixels (x, y) of one image.

    image: int64 scalar; x, y: float32 blocks of pixel indices; points (N, COUNT, 2) and weights
    (N, COUNT + 3, 2) contiguous float32. A field of zeros gives x and y exactly.
    """
    points_ptr += image * (2 * COUNT)
    weights_ptr += image * (2 * (COUNT + 3))
    extent_x = tl.maximum(W - 1, 1).to(tl.float32)
    extent_y = tl.maximum(H - 1, 1).to(tl.float32)
    u = x * (1.0 / extent_x)
    v = y * (1.0 / extent_y)
    tail = weights_ptr + 2 * COUNT
    field_x = tl.load(tail) + tl.load(tail + 2) * u + tl.load(tail + 4) * v
    field_y = tl.load(tail + 1) + tl.load(tail + 3) * u + tl.load(tail + 5) * v
    for i in tl.static_range(COUNT):
        to_x = u - tl.load(points_ptr + 2 * i)
        to_y = v - tl.load(points_ptr + 2 * i + 1)
        squared = to_x * to_x + to_y * to_y
        radial = (0.5 * LN_2) * squared * log2(squared)
        field_x += radial * tl.load(weights_ptr + 2 * i)
        field_y += radial * tl.load(weights_ptr + 2 * i + 1)
    return x + field_x * (W - 1), y + field_y * (H - 1)


@triton.jit
def within_window(x, y, window_ptr, image, H, W, HAS_WINDOW: tl.constexpr):
    """Tell which positions lie between the outermost pixel centres of the image or its window."""
    if HAS_WINDOW:
        window_ptr += image * 4
        top = tl.load(window_ptr).to(tl.float32)
        left = tl.load(window_ptr + 1).to(tl.float32)
        bottom = tl.load(window_ptr + 2).to(tl.float32) - 1
        right = tl.load(window_ptr + 3).to(tl.float32) - 1
        return (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    return (x >= 0) & (x <= W - 1) & (y >= 0) & (y <= H - 1)
