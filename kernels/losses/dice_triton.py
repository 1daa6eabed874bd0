"""The kernels of `dice.py`: sums of the classes, and the gradient that their slopes send down."""

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

import triton
import triton.language as tl

from ..cells import SIZES, exponentials, label_at, largest_logit, row_ends, way


@triton.jit(do_not_specialize=SIZES)
def class_sums_kernel(
    row_ptr,
    mask_ptr,
    sum_ptr,
    H,
    W,
    h,
    w,
    stride,
    ignore,
    segment,
    segments,
    strips,
    NUM_CLASSES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Sum the classes of one strip of one segment of the rows of cells."""
    pid = tl.program_id(0)
    n = (pid // (segments * strips)).to(tl.int64)
    first = (pid // strips) % segments * segment
    lane = tl.arange(0, BLOCK_B)
    col = pid % strips * BLOCK_B + lane
    cls = tl.arange(0, BLOCK_C)[:, None]
    half = (stride + 1) // 2
    rows = row_ptr + n * NUM_CLASSES * h * w
    overlaps = tl.zeros([BLOCK_C, BLOCK_B], tl.float32)
    probs, trues = overlaps, overlaps
    last = tl.minimum(first + segment, h + 1)
    # A block of scalars: the interpreter cannot mix them with blocks in a mask.
    nil = lane * 0
    for row in range(first * stride, last * stride):
        k = row // stride
        y = row - half
        left, right = row_ends(
            rows, k, way(row % stride, stride, k, h), col, cls, h, w, NUM_CLASSES
        )
        slope = right - left
        offset = (n * H + y) * W
        for dx in range(stride):
            x = col * stride - half + dx
            inside = (x >= 0) & (x < W) & (y + nil >= 0) & (y + nil < H) & (col <= w)
            target = label_at(mask_ptr + offset + x, inside, ignore)
            kept = inside & (target != ignore)
            z = left + slope * way(dx, stride, col, w)[None, :]
            e = exponentials(z, largest_logit(z, cls, NUM_CLASSES), cls, NUM_CLASSES)
            known = (target >= 0) & (target < NUM_CLASSES)
            share = tl.where(known, 1.0 / tl.sum(e, 0), float("nan"))
            prob = tl.where(kept[None, :], e * share[None, :], 0.0)
            here = (cls == target[None, :]) & kept[None, :]
            probs += prob
            overlaps += tl.where(here, prob, 0.0)
            trues += tl.where(here, 1.0, 0.0)
    ids = tl.arange(0, BLOCK_C)
    out = sum_ptr + pid * 3 * NUM_CLASSES + ids
    tl.store(out, tl.sum(overlaps, 1), mask=ids < NUM_CLASSES)
    tl.store(out + NUM_CLASSES, tl.sum(probs, 1), mask=ids < NUM_CLASSES)
    tl.store(out + 2 * NUM_CLASSES, tl.sum(trues, 1), mask=ids < NUM_CLASSES)


@triton.jit(do_not_specialize=SIZES)
def class_slopes_kernel(
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
    segment,
    segments,
    strips,
    NUM_CLASSES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Write the gradient's rows of one strip of one segment; see `_cell_loss_kernel` for the walk.

    slope_ptr: (2, C), dL/dP and dL/dI of each class.
    """
    pid = tl.program_id(0)
    n = (pid // (segments * strips)).to(tl.int64)
    first = (pid // strips) % segments * segment
    lane = tl.arange(0, BLOCK_B)
    col = pid % strips * (BLOCK_B - 1) + lane
    cls = tl.arange(0, BLOCK_C)[:, None]
    real = cls < NUM_CLASSES
    image = n * NUM_CLASSES * h * w
    half = (stride + 1) // 2
    every = tl.load(slope_ptr + cls, mask=real, other=0.0)
    zero = tl.zeros([BLOCK_C, BLOCK_B], tl.float32)
    upper_left, upper_right, lower_left, lower_right = zero, zero, zero, zero
    last = tl.minimum(first + segment, h)
    nil = lane * 0
    for row in range(first * stride, (last + 1) * stride):
        k = row // stride
        down = way(row % stride, stride, k, h)
        y = row - half
        left, right = row_ends(row_ptr + image, k, down, col, cls, h, w, NUM_CLASSES)
        slope = right - left
        offset = (n * H + y) * W
        for dx in range(stride):
            x = col * stride - half + dx
            across = way(dx, stride, col, w)
            inside = (x >= 0) & (x < W) & (y + nil >= 0) & (y + nil < H) & (col <= w)
            target = label_at(mask_ptr + offset + x, inside, ignore)
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
        if row % stride == stride - 1:
            out = gradient_ptr + image + (((k - 1) * NUM_CLASSES + cls) * w + col[None, :])
            done = real & (k + nil > first)[None, :]
            from_left = done & ((col < w) & (lane < BLOCK_B - 1))[None, :]
            tl.store(out, upper_right, mask=from_left)
            tl.debug_barrier()
            both = done & ((lane > 0) & (col <= w))[None, :]
            upper_left += tl.load(out - 1, mask=both, other=0.0)
            tl.store(out - 1, upper_left, mask=both)
            upper_left, upper_right = lower_left, lower_right
            lower_left, lower_right = zero, zero
