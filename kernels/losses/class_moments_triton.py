"""Class moments by one-hot matrix products, and what kernels over stride-s cells share."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compile import CompileCase, Work
from ..dispatch import INTERPRETED
from ..layout import check_indices, dense
from ..upsample import stride_of

# pyright: reportArgumentType=false, reportAssignmentType=false, reportFunctionMemberAccess=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

BLOCK = 32
CHUNKS = 128
WARPS = 8
SIZES = ["batch", "H", "W", "h", "w", "stride", "stride_n"]
PARTS = {torch.bfloat16: 1, torch.float16: 2, torch.float32: 3}


@triton.jit
def label_of(label_ptr, n, pixel, live, stride, H, W, w):
    """Load the label at the centre of each live cell `pixel` of image n's stride-s map."""
    y = tl.minimum(pixel // w * stride + stride // 2, H - 1)
    x = tl.minimum(pixel % w * stride + stride // 2, W - 1)
    label = tl.load(label_ptr + n * H * W + y * W + x, mask=live, other=0)
    # A byte cannot be compared with 256 classes.
    return label.to(tl.int32) if label.dtype.primitive_bitwidth < 32 else label


@triton.jit
def _sum_members(member, value, PARTS: tl.constexpr, UPCAST: tl.constexpr):
    """Sum rows of float32 values per class: one-hot members times values in bfloat16 parts.

    The members are exact, and the parts of a value add up to it, so that tensor cores in bfloat16
    sum float32 values: one part is exact for bfloat16 values, two for float16, three for float32.
    The interpreter misreads bfloat16 in products: UPCAST.
    """
    total = tl.zeros((member.shape[0], value.shape[1]), tl.float32)
    for _ in tl.static_range(PARTS):
        part = value.to(tl.bfloat16)
        if UPCAST:
            total += tl.dot(member.to(tl.float32), part.to(tl.float32))
        else:
            total = tl.dot(member, part, total)
        value -= part.to(tl.float32)
    return total


# Known as multiples of 16 these sizes widen loads that need more registers: half the warps per SM.
@triton.jit(do_not_specialize=SIZES)
def _class_moments_kernel(
    feature_ptr,
    label_ptr,
    count_ptr,
    mean_ptr,
    squares_ptr,
    batch,
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
    PARTS: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Reduce one chunk of pixels to count, mean and squared deviations of each class.

    Deviations are taken from the block's mean, and blocks are merged by Chan's formula, so that no
    square of a mean is ever subtracted.
    """
    chunk = tl.program_id(0)
    a = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    c = tl.arange(0, CLASSES)
    count = tl.zeros((CLASSES,), tl.float32)
    mean = tl.zeros((CLASSES, FEATURES), tl.float32)
    squares = tl.zeros((CLASSES, FEATURES), tl.float32)
    per_image = tl.cdiv(h * w, BLOCK)
    for block in range(chunk, batch * per_image, tl.num_programs(0)):
        n = (block // per_image).to(tl.int64)
        pixel = block % per_image * BLOCK + tl.arange(0, BLOCK)
        live = pixel < h * w
        label = label_of(label_ptr, n, pixel, live, stride, H, W, w)
        known = live & (label >= 0) & (label < C) & (label != IGNORED)
        at = feature_ptr + n * stride_n + pixel.to(tl.int64)[:, None] * stride_p
        value = tl.load(
            at + a[None, :] * stride_a, mask=known[:, None] & (a < A)[None, :], other=0.0
        ).to(tl.float32)
        hit = (c[:, None] == label[None, :]) & known[None, :]
        member = hit.to(tl.float32).to(tl.bfloat16)
        new = tl.sum(hit.to(tl.float32), 1)
        each = tl.maximum(new, 1.0)[:, None]
        centre = _sum_members(member, value, PARTS, UPCAST) / each
        value -= _sum_members(tl.trans(member), centre, 3, UPCAST)
        spread = _sum_members(member, value * value, 3, UPCAST)
        share = (new / tl.maximum(count + new, 1.0))[:, None]
        away = centre - mean
        squares += spread + away * away * share * count[:, None]
        mean += away * share
        count += new
    rows = chunk * C + c
    inside = (c < C)[:, None] & (a < A)[None, :]
    to = rows[:, None] * A + a[None, :]
    tl.store(mean_ptr + to, mean, mask=inside)
    tl.store(squares_ptr + to, squares, mask=inside)
    if tl.program_id(1) == 0:
        tl.store(count_ptr + rows, count, mask=c < C)


def sizes_and_strides(map: Tensor, label: Tensor) -> tuple[int, ...]:
    """Return H, W, h, w, stride and the map's strides over N, channels and flat pixels."""
    height, width = map.shape[-2:]
    size = (label.shape[1], label.shape[2])
    steps = (map.stride(0), map.stride(1), map.stride(3))
    return (*size, height, width, stride_of(map, size), *steps)


@torch.library.custom_op("warpseg::class_moments", mutates_args=())
def class_moments_op(
    feature: Tensor, label: Tensor, num_classes: int, ignore: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return count (C,) int64, mean and squares (C, A) float32 of each class."""
    feature, channels = dense(feature), feature.shape[1]
    padded, features = _moments_tile(num_classes)
    batch, height, width = feature.shape[0], *feature.shape[-2:]
    check_indices(height * width, batch * triton.cdiv(height * width, BLOCK))
    chunks = max(1, min(CHUNKS, batch * triton.cdiv(height * width, BLOCK)))
    count = feature.new_empty(chunks, num_classes, dtype=torch.float32)
    mean = feature.new_empty(chunks, num_classes, channels, dtype=torch.float32)
    squares = torch.empty_like(mean)
    with torch.cuda.device_of(feature):
        _class_moments_kernel[(chunks, triton.cdiv(channels, features))](
            feature,
            label.contiguous(),
            count,
            mean,
            squares,
            batch,
            *sizes_and_strides(feature, label),
            channels,
            IGNORED=ignore,
            C=num_classes,
            CLASSES=padded,
            FEATURES=features,
            PARTS=PARTS[feature.dtype],
            UPCAST=INTERPRETED,
            BLOCK=BLOCK,
            num_warps=WARPS,
        )
    # Chan's formula over the chunks; a chunk counts below 2^24 pixels, so float32 holds it exactly.
    total = count.long().sum(0)
    share = (count / total.clamp(min=1))[:, :, None]
    middle = (share * mean).sum(0)
    spread = (count[:, :, None] * (mean - middle).square()).sum(0)
    return total, middle, squares.sum(0) + spread


@class_moments_op.register_fake
def _(
    feature: Tensor, label: Tensor, num_classes: int, ignore: int
) -> tuple[Tensor, Tensor, Tensor]:
    mean = feature.new_empty(num_classes, feature.shape[1], dtype=torch.float32)
    return mean.new_empty(num_classes, dtype=torch.int64), mean, torch.empty_like(mean)


def _moments_tile(num_classes: int) -> tuple[int, int]:
    """Return padded classes and features per program, both at least 16 as matrix products ask."""
    padded = max(16, triton.next_power_of_2(num_classes))
    return padded, max(16, min(64, 2048 // padded))


def compile_cases() -> list[CompileCase]:
    """List the kernel at the class counts of the recipes, on channels-last bfloat16 features."""
    cases = []
    for classes in (19, 21):
        padded, features = _moments_tile(classes)
        pointers = {"feature_ptr": "*bf16", "label_ptr": "*u8"}
        pointers |= dict.fromkeys(("count_ptr", "mean_ptr", "squares_ptr"), "*fp32")
        sizes = dict.fromkeys((*SIZES, "A", "stride_p"), "i32")
        blocks = 256 // features
        cases.append(
            CompileCase(
                name=f"class_moments/C{classes}-A256-s4",
                kernel=_class_moments_kernel,
                signature={**pointers, **sizes, "stride_a": "i32"},
                sizes={"A": 256, "stride_a": 1, "stride_p": 256},
                constexprs={
                    "IGNORED": 255,
                    "C": classes,
                    "CLASSES": padded,
                    "FEATURES": features,
                    "PARTS": 1,
                    "UPCAST": False,
                    "BLOCK": BLOCK,
                },
                num_warps=WARPS,
                work=Work(8 * 768**2, CHUNKS * blocks, (8 * 192 * 192 / BLOCK / CHUNKS,)),
                # Each block of features reads the labels again: every fourth row of the map.
                bytes_per_pixel=2 * 256 / 16 + blocks / 4,
                floor_bytes_per_pixel=2 * 256 / 16 + 1 / 4,
            )
        )
    return cases
