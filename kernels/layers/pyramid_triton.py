"""Triton kernels of `pyramid`: averages on three grids, and three levels enlarged and joined."""

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false

import triton
import triton.language as tl

from .resize_add import enlarged

SIZES = ["batch", "H", "W", "h0", "w0", "h1", "w1", "h2", "w2", "most"]


@triton.jit
def _cell(pid, batch, h0, w0, h1, w1, h2, w2):
    """Return a program's image, the row and column of its cell, the cells of its grid down and
    across, how many cells of all images come before its grid's, and the grid's number."""
    first, second = h0 * w0, h0 * w0 + h1 * w1
    cells = second + h2 * w2
    image, at = (pid // cells).to(tl.int64), pid % cells
    down = tl.where(at < first, h0, tl.where(at < second, h1, h2))
    across = tl.where(at < first, w0, tl.where(at < second, w1, w2))
    before = tl.where(at < first, 0, tl.where(at < second, first, second))
    level = tl.where(at < first, 0, tl.where(at < second, 1, 2))
    at -= before
    return image, at // across, at % across, down, across, before.to(tl.int64) * batch, level


@triton.jit(do_not_specialize=SIZES)
def _average_kernel(
    x_ptr,
    out_ptr,
    batch,
    H,
    W,
    h0,
    w0,
    h1,
    w1,
    h2,
    w2,
    C: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program: one cell of one grid of one image, all channels."""
    pid = tl.program_id(0)
    image, row, col, down, across, before, _ = _cell(pid, batch, h0, w0, h1, w1, h2, w2)
    top, bottom = row * H // down, ((row + 1) * H + down - 1) // down
    left, right = col * W // across, ((col + 1) * W + across - 1) // across
    c = tl.arange(0, BLOCK_C)[None, :]
    total = tl.zeros([BLOCK_W, BLOCK_C], tl.float32)
    for y in range(top, bottom):
        line = x_ptr + (image * H + y) * W * C
        for start in range(left, right, BLOCK_W):
            x = (start + tl.arange(0, BLOCK_W))[:, None]
            total += tl.load(line + x * C + c, (x < right) & (c < C), other=0.0).to(tl.float32)
    mean = tl.sum(total, 0)[None, :] / ((bottom - top) * (right - left)).to(tl.float32)
    to = out_ptr + (before + (image * down + row) * across + col) * C + c
    tl.store(to, mean.to(out_ptr.dtype.element_ty), c < C)


@triton.jit
def _spread(ptr, image, y, x, c, live, h, w, H, W, most, C: tl.constexpr):
    """Return the gradient of the pixels of row y and columns x through their cells' averages."""
    total = tl.zeros(live.shape, tl.float32)
    first = (x * w // W)[:, None]
    last = (((x + 1) * w + W - 1) // W)[:, None]
    for row in range(y * h // H, ((y + 1) * h + H - 1) // H):
        high = ((row + 1) * H + h - 1) // h - row * H // h
        line = ptr + (image * h + row) * w * C
        for step in range(most):
            col = first + step
            wide = ((col + 1) * W + w - 1) // w - col * W // w
            value = tl.load(line + col * C + c, live & (col < last), other=0.0)
            total += value.to(tl.float32) / (high * wide).to(tl.float32)
    return total


@triton.jit(do_not_specialize=["direct_n", "direct_h", "direct_w", *SIZES])
def _average_backward_kernel(
    direct_ptr,
    first_ptr,
    second_ptr,
    third_ptr,
    out_ptr,
    direct_n,
    direct_h,
    direct_w,
    H,
    W,
    h0,
    w0,
    h1,
    w1,
    h2,
    w2,
    most,
    C: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program: some columns of one row of one image, all channels."""
    line = tl.program_id(1).to(tl.int64)
    image, y = line // H, (line % H).to(tl.int32)
    x = tl.program_id(0) * BLOCK_W + tl.arange(0, BLOCK_W)
    c = tl.arange(0, BLOCK_C)[None, :]
    live = (x < W)[:, None] & (c < C)
    at = image * direct_n + y.to(tl.int64) * direct_h + x.to(tl.int64)[:, None] * direct_w + c
    total = tl.load(direct_ptr + at, live, other=0.0).to(tl.float32)
    total += _spread(third_ptr, image, y, x, c, live, h2, w2, H, W, most, C)
    total += _spread(second_ptr, image, y, x, c, live, h1, w1, H, W, most, C)
    total += _spread(first_ptr, image, y, x, c, live, h0, w0, H, W, most, C)
    to = (line * W + x[:, None]) * C + c
    tl.store(out_ptr + to, total.to(out_ptr.dtype.element_ty), live)


@triton.jit(do_not_specialize=SIZES)
def _join_kernel(
    x_ptr,
    first_ptr,
    second_ptr,
    third_ptr,
    out_ptr,
    H,
    W,
    h0,
    w0,
    h1,
    w1,
    h2,
    w2,
    C: tl.constexpr,
    LEVEL: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """One program: some columns of one row of one image, all channels."""
    line = tl.program_id(1).to(tl.int64)
    image, y = line // H, (line % H).to(tl.int32)
    x = tl.program_id(0) * BLOCK_W + tl.arange(0, BLOCK_W)
    kind = out_ptr.dtype.element_ty
    c = tl.arange(0, BLOCK_C)[None, :]
    live = (x < W)[:, None] & (c < C)
    place = line * W + x[:, None]
    to = out_ptr + place * (C + 3 * LEVEL)
    tl.store(to + c, tl.load(x_ptr + place * C + c, live, other=0.0), live)
    c = tl.arange(0, BLOCK_L)[None, :]
    live = (x < W)[:, None] & (c < LEVEL)
    to += C + c
    value = enlarged(first_ptr, image, y, x, c, live, h0, w0, H, W, LEVEL)
    tl.store(to, value.to(kind), live)
    value = enlarged(second_ptr, image, y, x, c, live, h1, w1, H, W, LEVEL)
    tl.store(to + LEVEL, value.to(kind), live)
    value = enlarged(third_ptr, image, y, x, c, live, h2, w2, H, W, LEVEL)
    tl.store(to + 2 * LEVEL, value.to(kind), live)


@triton.jit
def _share(place, cell, cells, pixels):
    """Return the share of a cell in the pixels at `place` of an enlarged axis."""
    last = (cells - 1).to(tl.float32)
    at = (place + 0.5) * (cells.to(tl.float32) / pixels.to(tl.float32)) - 0.5
    at = tl.minimum(tl.maximum(at, 0.0), last)
    return tl.maximum(1.0 - tl.abs(at - cell), 0.0)


@triton.jit
def _reach(cell, cells, pixels):
    """Return the first pixel of an enlarged axis that a cell may have a share in, and the end."""
    begin = ((2 * cell - 1) * pixels) // (2 * cells) - 1
    end = ((2 * cell + 3) * pixels) // (2 * cells) + 2
    return tl.maximum(begin, 0), tl.minimum(end, pixels)


@triton.jit(do_not_specialize=SIZES)
def _join_backward_kernel(
    gradient_ptr,
    out_ptr,
    batch,
    H,
    W,
    h0,
    w0,
    h1,
    w1,
    h2,
    w2,
    C: tl.constexpr,
    LEVEL: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """One program: one cell of one level of one image, all its channels."""
    pid = tl.program_id(0)
    image, row, col, down, across, before, level = _cell(pid, batch, h0, w0, h1, w1, h2, w2)
    top, bottom = _reach(row, down, H)
    left, right = _reach(col, across, W)
    c = tl.arange(0, BLOCK_L)[None, :]
    total = tl.zeros([BLOCK_W, BLOCK_L], tl.float32)
    for y in range(top, bottom):
        line = gradient_ptr + (image * H + y) * W * (C + 3 * LEVEL) + C + level * LEVEL
        high = _share(y, row, down, H)
        for start in range(left, right, BLOCK_W):
            x = (start + tl.arange(0, BLOCK_W))[:, None]
            live = (x < right) & (c < LEVEL)
            value = tl.load(line + x * (C + 3 * LEVEL) + c, live, other=0.0).to(tl.float32)
            total += value * (_share(x, col, across, W) * high)
    to = out_ptr + (before + (image * down + row) * across + col) * LEVEL + c
    tl.store(to, tl.sum(total, 0)[None, :].to(out_ptr.dtype.element_ty), c < LEVEL)
