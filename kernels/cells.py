"""The cell kernel: a loss over full-resolution pixels, computed from stride-s logits in registers.

The s x s pixels between four neighbouring logits form a cell; cell k reaches from logit k - 1 to
logit k, so a map of w columns has w + 1 cells, the outer ones cut by the border. A program owns a
strip of cells, one or more lanes each, and walks down the pixel rows of a segment. It interpolates
the row's two ends once, then each pixel with one multiply-add per class, takes the softmax in
registers in float32, asks the operation's `pixel` function for the pixel's loss and the factor k of

    dL/dz = k (softmax(z) - onehot(t))

which is the gradient of every loss here, and adds it to the four corners with the interpolation's
own weights. The lower corners of one row of cells are the upper corners of the next: their sums
stay in registers. A finished row of logits is the sum of two lanes: the left one writes its part,
and after a barrier the right one adds its own. Neighbouring programs recompute the cells that they
share, so nothing is added atomically, every sum has one order, and each output is written once.
What they share is much of a map at stride 8 or 16: there `losses/coarse` deals the cells otherwise.

Bytes per pixel, C classes of b bytes at stride s: 2bC/s^2 to turn channels-last logits into rows
(once), bC/s^2 read, 4C/s^2 of float32 gradient written, and the maps (a byte per label). Time is
arithmetic: about 18 instructions per pixel and class.
"""

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportOperatorIssue=false

import triton
import triton.language as tl

from .rows import widen

HIDE = tl.constexpr(tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 9))
"""Whether every loss gains from `hidden` targets: else only those that ask for it."""

SIZES = ["H", "W", "h", "w", "stride", "ignore", "segment", "segments", "strips", "copies"]
"""Arguments that Triton must not specialise on: a width known to be a multiple of 16 would make it
load several columns per thread and spread the classes over threads instead. It also compiles once
for images of all sizes."""


@triton.jit
def label_at(ptr, inside, ignore):
    """Load labels of any integer type as int32, 0 where not `inside`.

    One of 64 bits that does not fit becomes one that is neither a class nor `ignore`.
    """
    label = tl.load(ptr, mask=inside, other=0)
    narrow = label.to(tl.int32)
    if label.dtype.primitive_bitwidth == 64:
        strange = tl.where(ignore == -1, -2, -1)
        narrow = tl.where(narrow.to(tl.int64) == label, narrow, strange)
    return narrow


@triton.jit
def logit_of(z, cls, target, NUM_CLASSES: tl.constexpr):
    """Return the logit of `target` (lanes,) from z (classes, lanes); of a masked class, -inf."""
    z = tl.sum(tl.where((cls == target[None, :]) & (cls < NUM_CLASSES), z, 0.0), 0)
    return tl.where(z < -1e30, float("-inf"), z)


@triton.jit
def hidden(target, place):
    """Return the target in a way that the compiler cannot see through: `place` is below 2^20.

    Where it sees the same comparisons of a target with every class made twice, it may keep them in
    as many predicates, pack and unpack them: up to a quarter of a loss's instructions.
    """
    return target + (place >> 20)


@triton.jit
def first_largest(z, largest, cls, NUM_CLASSES: tl.constexpr):
    """Return the lowest class whose logit is `largest`."""
    here = (z == largest[None, :]) & (cls < NUM_CLASSES)
    return tl.min(tl.where(here, cls, NUM_CLASSES), 0)


@triton.jit
def largest_logit(z, cls, NUM_CLASSES: tl.constexpr):
    """Return the largest logit over the classes."""
    return tl.max(tl.where(cls < NUM_CLASSES, z, float("-inf")), 0)


@triton.jit
def exponentials(z, largest, cls, NUM_CLASSES: tl.constexpr):
    """Return exp(z - largest), 0 beyond the classes; exactly 1 for the largest."""
    # exp2, unlike exp, may flush denormal numbers: three instructions fewer.
    return tl.where(cls < NUM_CLASSES, tl.exp2((z - largest[None, :]) * 1.4426950408889634), 0.0)


@triton.jit
def row_ends(row_ptr, k, down, col, cls, h, w, NUM_CLASSES: tl.constexpr):
    """Interpolate the logits of one pixel row at the left and right ends of its cells.

    `row_ptr` points to the rows of the image, `k` is the row of cells, `down` the way down in it.
    Offsets within an image fit 32 bits.
    """
    upper = row_ptr + ((tl.maximum(k - 1, 0) * NUM_CLASSES + cls) * w + col[None, :])
    lower = row_ptr + ((tl.minimum(k, h - 1) * NUM_CLASSES + cls) * w + col[None, :])
    at_left = (cls < NUM_CLASSES) & ((col >= 1) & (col <= w))[None, :]
    at_right = (cls < NUM_CLASSES) & (col < w)[None, :]
    left = widen(tl.load(upper - 1, mask=at_left, other=0.0)) * (1 - down)
    left += widen(tl.load(lower - 1, mask=at_left, other=0.0)) * down
    right = widen(tl.load(upper, mask=at_right, other=0.0)) * (1 - down)
    right += widen(tl.load(lower, mask=at_right, other=0.0)) * down
    return left, right


@triton.jit
def way(step, stride, k, last):
    """Return how far pixel `step` of cell `k` lies between its two logits, borders clamped."""
    inner = (step + (1 - stride % 2) * 0.5) * (1.0 / stride)
    return tl.where(k == 0, 1.0, tl.where(k >= last, 0.0, inner))


@triton.jit(do_not_specialize=SIZES)
def _cell_loss_kernel(
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
    segment,
    segments,
    strips,
    PIXEL: tl.constexpr,
    OPTION: tl.constexpr,
    NUM_CLASSES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Sum loss and counts of one strip of one segment; write its rows of the gradient."""
    pid = tl.program_id(0)
    n = (pid // (segments * strips)).to(tl.int64)
    first = (pid // strips) % segments * segment
    lane = tl.arange(0, BLOCK_B)
    col = pid % strips * (BLOCK_B - 1) + lane
    cls = tl.arange(0, BLOCK_C)[:, None]
    real = cls < NUM_CLASSES
    image = n * NUM_CLASSES * h * w
    half = (stride + 1) // 2
    own_col = ((lane < BLOCK_B - 1) | (col == w)) & (col <= w)
    zero = tl.zeros([BLOCK_C, BLOCK_B], tl.float32)
    upper_left, upper_right, lower_left, lower_right = zero, zero, zero, zero
    losses = tl.zeros([BLOCK_B], tl.float32)
    kepts, firsts, seconds, thirds = losses, losses, losses, losses
    last = tl.minimum(first + segment, h)
    # One loop over pixel rows: in nested loops the compiler hoists the loads and runs out of
    # registers for the corners. `nil` makes blocks of scalars: the interpreter cannot mix them in
    # a mask.
    nil = lane * 0
    for row in range(first * stride, (last + 1) * stride):
        k = row // stride
        down = way(row % stride, stride, k, h)
        y = row - half
        own = own_col & ((k + nil < first + segment) | (k + nil == h))
        left, right = row_ends(row_ptr + image, k, down, col, cls, h, w, NUM_CLASSES)
        slope = right - left
        offset = (n * H + y) * W
        for dx in range(stride):
            x = col * stride - half + dx
            across = way(dx, stride, col, w)
            inside = (x >= 0) & (x < W) & (y + nil >= 0) & (y + nil < H) & (col <= w)
            target = label_at(target_ptr + offset + x, inside, ignore)
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
                offset + x,
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
            losses += tl.where(kept & own, tl.where(known, loss, float("nan")), 0.0)
            kepts += tl.where(kept & own, 1.0, 0.0)
            firsts += tl.where(inside & own, one, 0.0)
            seconds += tl.where(inside & own, two, 0.0)
            thirds += tl.where(inside & own, three, 0.0)
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
    programs = tl.num_programs(0)
    tl.store(total_ptr + pid, tl.sum(losses, 0))
    tl.store(total_ptr + programs + pid, tl.sum(kepts, 0))
    tl.store(total_ptr + 2 * programs + pid, tl.sum(firsts, 0))
    tl.store(total_ptr + 3 * programs + pid, tl.sum(seconds, 0))
    tl.store(total_ptr + 4 * programs + pid, tl.sum(thirds, 0))


def tile(classes: int, spread: bool = False) -> tuple[int, int, int]:
    """Return (classes rounded up, lanes, warps) of a program.

    Up to 25 classes a thread holds all classes of one cell: their number is then known to the
    compiler, rounding up costs nothing and the softmax needs no exchange. Beyond, registers would
    spill, so two and more threads share a cell. spread: twice as many or more share it, for an
    operation with so many terms of its own that 81 and 171 classes spill as they are.
    """
    block_c = max(2, triton.next_power_of_2(classes))
    if classes <= 25:
        return block_c, 32, 1
    if classes <= 128 and not spread:
        return block_c, 512 // block_c, 1
    return block_c, 4 if spread and classes > 160 else 8, 4
