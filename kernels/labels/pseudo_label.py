"""Pseudo-labels from stride-s logits: label, confidence and class counts in one pass.

    label = argmax_k z_k (the lowest of equals),    confidence = max_k softmax(z)_k

at full resolution, mixed by CutMix boxes on request while they are written: a pixel goes to its own
image and, where the image that takes from it has a box, there as well. Bytes per pixel: 5 written,
3bC/s^2 for logits of b bytes (turned to class rows once); floor 5 + bC/s^2.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ... import IGNORE
from ..cells import SIZES, exponentials, first_largest, largest_logit, row_ends, tile, way
from ..compile import CompileCase, Work
from ..dispatch import use_op
from ..rows import to_rows
from ..upsample import stride_of, upsample_logits
from ..views.cutmix import CutMixBoxes, cutmix_reference
from ..views.cutmix_triton import from_partner
from .quantile import select

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false


class PseudoLabel(NamedTuple):
    """What a teacher says of a batch.

    label: (N, H, W) uint8. confidence: (N, H, W) float32 in (0, 1]. histogram: (C,) int64, how many
    pixels of `label` each class has.
    """

    label: Tensor
    confidence: Tensor
    histogram: Tensor


def pseudo_label_reference(
    logits: Tensor, size: tuple[int, int], boxes: CutMixBoxes | None = None
) -> PseudoLabel:
    """Label in plain PyTorch."""
    full = upsample_logits(logits if logits.dtype == torch.float64 else logits.float(), size)
    largest, label = full.max(1)
    confidence = 1 / (full - largest[:, None]).exp().sum(1)
    label = label.to(torch.uint8)
    if boxes is not None:
        label, confidence = cutmix_reference(label, boxes), cutmix_reference(confidence, boxes)
    counts = torch.bincount(label.flatten().long(), minlength=logits.shape[1])
    return PseudoLabel(label, confidence.float(), counts)


@triton.jit(do_not_specialize=SIZES)
def _pseudo_label_kernel(
    row_ptr,
    box_ptr,
    inverse_ptr,
    label_ptr,
    confidence_ptr,
    count_ptr,
    H,
    W,
    h,
    w,
    stride,
    strips,
    BOXES: tl.constexpr,
    NUM_CLASSES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Label the pixels of one strip of one row of cells."""
    pid = tl.program_id(0)
    n = (pid // ((h + 1) * strips)).to(tl.int64)
    k = pid // strips % (h + 1)
    lane = tl.arange(0, BLOCK_B)
    col = pid % strips * BLOCK_B + lane
    cls = tl.arange(0, BLOCK_C)[:, None]
    half = (stride + 1) // 2
    taker = n
    if BOXES:
        taker = tl.load(inverse_ptr + n)
    counts = tl.zeros([BLOCK_C, BLOCK_B], tl.int32)
    for dy in range(stride):
        line = k * stride - half + dy
        # A block: the interpreter cannot mix scalars and blocks in a mask.
        y = line + lane * 0
        down = way(dy, stride, k, h)
        rows = row_ptr + n * NUM_CLASSES * h * w
        left, right = row_ends(rows, k, down, col, cls, h, w, NUM_CLASSES)
        slope = right - left
        for dx in range(stride):
            x = col * stride - half + dx
            inside = (x >= 0) & (x < W) & (y >= 0) & (y < H) & (col <= w)
            z = left + slope * way(dx, stride, col, w)[None, :]
            largest = largest_logit(z, cls, NUM_CLASSES)
            total = tl.sum(exponentials(z, largest, cls, NUM_CLASSES), 0)
            confidence = 1.0 / total
            label = first_largest(z, largest, cls, NUM_CLASSES)
            # NaN is the largest, as in PyTorch; rare, so that the others do not wait for it.
            broken = total != total
            if tl.sum(broken.to(tl.int32), 0) > 0:
                nan = tl.min(tl.where((z != z) & (cls < NUM_CLASSES), cls, NUM_CLASSES), 0)
                label = tl.where(broken & (nan < NUM_CLASSES), nan, label)
            stays = inside
            if BOXES:
                stays = inside & (from_partner(box_ptr, n, line, x, BOXES) == 0)
            place = (n * H + y) * W + x
            tl.store(label_ptr + place, label.to(tl.uint8), mask=stays)
            tl.store(confidence_ptr + place, confidence, mask=stays)
            hits = tl.where(stays, 1, 0)
            if BOXES:
                goes = inside & from_partner(box_ptr, taker, line, x, BOXES)
                place = (taker * H + y) * W + x
                tl.store(label_ptr + place, label.to(tl.uint8), mask=goes)
                tl.store(confidence_ptr + place, confidence, mask=goes)
                hits += tl.where(goes, 1, 0)
            here = (cls == label[None, :]) & (cls < NUM_CLASSES)
            counts += tl.where(here, hits[None, :], 0)
    ids = tl.arange(0, BLOCK_C)
    # Integers: their sum does not depend on the order.
    tl.atomic_add(count_ptr + ids, tl.sum(counts, 1), mask=ids < NUM_CLASSES, sem="relaxed")


@torch.library.custom_op("warpseg::pseudo_label", mutates_args=())
def _pseudo_label(
    logits: Tensor, size: list[int], boxes: Tensor | None, inverse: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    label, confidence, counts = _outputs(logits, size)
    batch, classes, h, w = logits.shape
    counts = counts.zero_()
    if not label.numel():
        return label, confidence, counts
    block_c, lanes, warps = tile(classes)
    strips = triton.cdiv(w + 1, lanes)
    constants: dict[str, Any] = {
        "BOXES": 0 if boxes is None else boxes.shape[1],
        "NUM_CLASSES": classes,
        "BLOCK_C": block_c,
        "BLOCK_B": lanes,
        "num_warps": warps,
    }
    with torch.cuda.device_of(logits):
        _pseudo_label_kernel[(batch * (h + 1) * strips,)](
            to_rows(logits),
            label if boxes is None else boxes.contiguous(),
            label if inverse is None else inverse.contiguous(),
            label,
            confidence,
            counts,
            *size,
            h,
            w,
            stride_of(logits, (size[0], size[1])),
            strips,
            **constants,
        )
    return label, confidence, counts


@_pseudo_label.register_fake
def _outputs(logits: Tensor, size: list[int], *_: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    shape = (logits.shape[0], *size)
    return (
        logits.new_empty(shape, dtype=torch.uint8),
        logits.new_empty(shape, dtype=torch.float32),
        logits.new_empty((logits.shape[1],), dtype=torch.int32),
    )


def pseudo_label(
    logits: Tensor, size: tuple[int, int], *, boxes: CutMixBoxes | None = None
) -> PseudoLabel:
    """Return label, confidence and class counts at full resolution.

    `logits` (N, C, h, w) at stride s of any float dtype and memory format, at most 255 classes;
    `size` (H, W) in pixels. With `boxes`, drawn for `size`, label and confidence are mixed as
    `cutmix` mixes the images. No gradient, no host sync.

    Raises ValueError for shapes that do not fit.
    """
    if logits.ndim != 4 or not 1 <= logits.shape[1] < IGNORE + 1:
        raise ValueError(f"logits must be (N, 1 to 255 classes, h, w); got {tuple(logits.shape)}")
    stride_of(logits, size)
    if boxes is not None and (boxes.size != tuple(size) or len(boxes.boxes) != len(logits)):
        raise ValueError(
            f"boxes are for {len(boxes.boxes)} images of {boxes.size}; got {len(logits)} of {size}"
        )
    logits = logits.detach()
    if not use_op(logits, None if boxes is None else boxes.boxes):
        return pseudo_label_reference(logits, size, boxes)
    given = (None, None) if boxes is None else (boxes.boxes, boxes.inverse)
    label, confidence, counts = _pseudo_label(logits, list(size), *given)
    return PseudoLabel(label, confidence, counts.long())


def class_thresholds(label: Tensor, confidence: Tensor, num_classes: int, ratio: float) -> Tensor:
    """Return the confidence down to which a share of each class is kept (DMT, section 4.2.2).

    Of the n values of one predicted class, sorted, the threshold is number int(n ratio) + 1 from
    the top, compared by >=, as the official code ranks. Where n ratio < 1 all of them are kept
    (threshold 1e-5), with ratio 1 too (the least value); a class that is never predicted has 0.
    `label` and `confidence` have one shape, for example every 16th pixel of all images; the result
    is (num_classes,) float32 on their device. No host sync on CUDA.

    Raises ValueError for a ratio outside (0, 1] or shapes that differ.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be in (0, 1]; got {ratio}")
    thresholds = []
    for cls in range(num_classes):
        of_class = label == cls
        count = of_class.sum()
        kept = (count.double() * ratio).floor().long()
        rank = (count - 1 - kept).clamp(min=0)
        value, _ = select(confidence, rank, mask=of_class)
        value = torch.where((kept < 1) & (ratio < 1), 1e-5, value.float())
        thresholds.append(torch.where(count > 0, value, 0))
    return torch.stack(thresholds)


def drop_unsure(label: Tensor, confidence: Tensor, thresholds: Tensor) -> Tensor:
    """Return the label with IGNORE where the confidence is below its class's threshold.

    `label` and `confidence` (N, H, W), `thresholds` (C,) as `class_thresholds` gives them.
    """
    needed = thresholds[label.long().clamp(max=len(thresholds) - 1)]
    return torch.where((label != IGNORE) & (confidence >= needed), label, IGNORE)


def compile_cases() -> list[CompileCase]:
    """List the kernel without boxes and with those of MKD, for bfloat16 logits at stride 4."""
    cases = []
    plain = [(classes, 0) for classes in (19, 21, 81, 150, 171)]
    for classes, boxes in (*plain, (19, 4), (21, 4)):
        block_c, lanes, warps = tile(classes)
        pointers = {
            "row_ptr": "*bf16",
            "box_ptr": "*i32" if boxes else "*u8",
            "inverse_ptr": "*i64" if boxes else "*u8",
            "label_ptr": "*u8",
            "confidence_ptr": "*fp32",
            "count_ptr": "*i32",
        }
        cases.append(
            CompileCase(
                name=f"pseudo_label{'-cutmix' if boxes else ''}/C{classes}",
                kernel=_pseudo_label_kernel,
                signature=pointers | dict.fromkeys(("H", "W", "h", "w", "stride", "strips"), "i32"),
                constexprs={
                    "BOXES": boxes,
                    "NUM_CLASSES": classes,
                    "BLOCK_C": block_c,
                    "BLOCK_B": lanes,
                },
                num_warps=warps,
                work=Work(8 * 768**2, 8 * 193 * triton.cdiv(193, lanes), (4, 4)),
                bytes_per_pixel=5 + 2 * classes / 16,
                floor_bytes_per_pixel=5 + 2 * classes / 16,
            )
        )
    return cases
