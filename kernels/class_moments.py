"""Count, mean and squared deviations of the features of each class, in one pass.

The batch's contribution to the class statistics of MKD section 3.4 (Var and Mean per class and
channel), and the label lookup that feature-space augmentation shares. Moved per stride-s pixel: the
features once (2 A bytes in bfloat16) and a label.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import IGNORE
from .dispatch import use_op
from .nearest import at_centres
from .upsample import stride_of

__all__ = ["class_moments", "class_moments_reference"]

BLOCK = 64
CHUNKS = 128


def class_moments_reference(
    feature: Tensor, label: Tensor, num_classes: int, ignore: int = IGNORE
) -> tuple[Tensor, Tensor, Tensor]:
    """Do what `class_moments` does in plain PyTorch: the definition, on any device."""
    index = class_index(feature, label, num_classes, ignore).flatten()
    channels = feature.shape[1]
    flat = feature.detach().movedim(1, -1).reshape(-1, channels)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    # What does not count may be anything, also NaN.
    flat = torch.where((index < num_classes)[:, None], flat, 0)
    rows = flat.new_zeros(num_classes + 1, channels)
    count = torch.zeros(num_classes + 1, dtype=torch.int64, device=flat.device)
    count = count.index_add(0, index, torch.ones_like(index))
    mean = rows.index_add(0, index, flat) / count.clamp(min=1)[:, None]
    squares = rows.index_add(0, index, (flat - mean[index]).square())
    return count[:-1], mean[:-1], squares[:-1]


def class_index(map: Tensor, label: Tensor, num_classes: int, ignore: int) -> Tensor:
    """Return (N, h, w) int64: the class of each cell, num_classes where it counts for nothing."""
    label = at_centres(label, stride_of(map, (label.shape[1], label.shape[2]))).long()
    counts = (label >= 0) & (label < num_classes) & (label != ignore)
    return torch.where(counts, label, num_classes)


@triton.jit
def label_of(label_ptr, pixel, live, stride, H, W, h, w):
    """Load the label at the centre of each live cell of the flat (N, h, w) grid."""
    n = pixel // (h * w)
    y = tl.minimum(pixel // w % h * stride + stride // 2, H - 1)
    x = tl.minimum(pixel % w * stride + stride // 2, W - 1)
    return tl.load(label_ptr + n * H * W + y * W + x, mask=live, other=0)


@triton.jit
def _class_moments_kernel(
    feature_ptr,
    label_ptr,
    count_ptr,
    mean_ptr,
    squares_ptr,
    pixels,
    H,
    W,
    h,
    w,
    stride,
    stride_n,
    stride_a,
    stride_p,
    A,
    IGNORED: tl.constexpr,
    C: tl.constexpr,
    CLASSES: tl.constexpr,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Reduce one chunk of pixels to count, mean and squared deviations of each class.

    One-hot matrix products do the sums; the chunk's blocks are merged by Chan's formula, so that no
    square of a mean is ever subtracted.
    """
    chunk = tl.program_id(0).to(tl.int64)
    a = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    c = tl.arange(0, CLASSES)
    count = tl.zeros((CLASSES,), tl.float32)
    mean = tl.zeros((CLASSES, FEATURES), tl.float32)
    squares = tl.zeros((CLASSES, FEATURES), tl.float32)
    blocks = tl.cdiv(pixels, BLOCK)
    for block in range(chunk, blocks, tl.num_programs(0)):
        pixel = block * BLOCK + tl.arange(0, BLOCK)
        live = pixel < pixels
        label = label_of(label_ptr, pixel, live, stride, H, W, h, w)
        known = live & (label >= 0) & (label < C) & (label != IGNORED)
        at = feature_ptr + (pixel // (h * w) * stride_n + pixel % (h * w) * stride_p)[:, None]
        value = tl.load(
            at + a[None, :] * stride_a, mask=known[:, None] & (a < A)[None, :], other=0.0
        ).to(tl.float32)
        member = ((c[:, None] == label[None, :]) & known[None, :]).to(tl.float32)
        new = tl.sum(member, 1)
        centre = tl.dot(member, value, input_precision="tf32x3") / tl.maximum(new, 1.0)[:, None]
        value -= tl.dot(tl.trans(member), centre, input_precision="tf32x3")
        total = tl.maximum(count + new, 1.0)
        away = centre - mean
        squares += tl.dot(member, value * value, input_precision="tf32x3")
        squares += away * away * (count * new / total)[:, None]
        mean += away * (new / total)[:, None]
        count += new
    rows = chunk * C + c
    inside = (c < C)[:, None] & (a < A)[None, :]
    at = rows[:, None] * A + a[None, :]
    tl.store(mean_ptr + at, mean, mask=inside)
    tl.store(squares_ptr + at, squares, mask=inside)
    if tl.program_id(1) == 0:
        tl.store(count_ptr + rows, count, mask=c < C)


def grid_of(map: Tensor, label: Tensor) -> tuple[int, ...]:
    """Return pixels, H, W, h, w, stride and the map's strides over N, channels, flat pixels."""
    batch, _, height, width = map.shape
    size = (label.shape[1], label.shape[2])
    steps = (map.stride(0), map.stride(1), map.stride(3))
    return (batch * height * width, *size, height, width, stride_of(map, size), *steps)


def dense(map: Tensor) -> Tensor:
    if map.is_contiguous():
        return map
    return map.contiguous(memory_format=torch.channels_last)


@torch.library.custom_op("warpseg::class_moments", mutates_args=())
def _class_moments(
    feature: Tensor, label: Tensor, num_classes: int, ignore: int
) -> tuple[Tensor, Tensor, Tensor]:
    feature, channels = dense(feature), feature.shape[1]
    grid = grid_of(feature, label)
    padded, features = _moments_tile(num_classes)
    chunks = max(1, min(CHUNKS, triton.cdiv(grid[0], BLOCK)))
    count = feature.new_empty(chunks, num_classes, dtype=torch.float32)
    mean = feature.new_empty(chunks, num_classes, channels, dtype=torch.float32)
    squares = torch.empty_like(mean)
    _class_moments_kernel[(chunks, triton.cdiv(channels, features))](
        feature,
        label.contiguous(),
        count,
        mean,
        squares,
        *grid,
        channels,
        IGNORED=ignore,
        C=num_classes,
        CLASSES=padded,
        FEATURES=features,
        BLOCK=BLOCK,
    )
    # Chan's formula over the chunks; a chunk counts below 2^24 pixels, so float32 holds it exactly.
    total = count.long().sum(0)
    share = (count / total.clamp(min=1))[:, :, None]
    middle = (share * mean).sum(0)
    spread = (count[:, :, None] * (mean - middle).square()).sum(0)
    return total, middle, squares.sum(0) + spread


@_class_moments.register_fake
def _(
    feature: Tensor, label: Tensor, num_classes: int, ignore: int
) -> tuple[Tensor, Tensor, Tensor]:
    mean = feature.new_empty(num_classes, feature.shape[1], dtype=torch.float32)
    return mean.new_empty(num_classes, dtype=torch.int64), mean, torch.empty_like(mean)


def _moments_tile(num_classes: int) -> tuple[int, int]:
    """Return padded classes and features per program, both at least 16 as matrix products ask."""
    padded = max(16, triton.next_power_of_2(num_classes))
    return padded, max(16, min(64, 2048 // padded))


def class_moments(
    feature: Tensor, label: Tensor, num_classes: int, ignore: int = IGNORE
) -> tuple[Tensor, Tensor, Tensor]:
    """Reduce the features of each class to count, mean and summed squared deviations.

    feature: (N, A, h, w), any dtype; no gradient. label: as for `feature_shift`. Returns count (C,)
    int64, mean (C, A) float32 (0 for a class without pixels), squares (C, A) float32.

    Raises ValueError for shapes and dtypes that do not fit.
    """
    check_map(feature, label)
    if not use_op(feature, label):
        return class_moments_reference(feature, label, num_classes, ignore)
    return _class_moments(feature.detach(), label, num_classes, ignore)


def check_map(map: Tensor, label: Tensor) -> None:
    if map.ndim != 4 or not map.is_floating_point():
        raise ValueError(
            f"expected a floating-point map (N, C, h, w); got {tuple(map.shape)} {map.dtype}"
        )
    if label.ndim != 3 or label.is_floating_point() or label.shape[0] != map.shape[0]:
        raise ValueError(
            f"label must be ({map.shape[0]}, H, W) of integers; got {tuple(label.shape)} "
            f"{label.dtype}"
        )
    stride_of(map, (label.shape[1], label.shape[2]))
