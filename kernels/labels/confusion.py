"""Confusion matrix of stride-s logits against a full-resolution mask.

    M[t, p] = number of pixels of true class t whose largest upsampled logit is p's

Ties go to the lowest class. Evaluation sums it over images; every score is a function of M.
Bytes per pixel: 1 for the mask and 3bC/s^2 for logits of b bytes (turned to class rows once).
Pixels are counted by integer atomics, spread over several copies of the matrix because most pixels
of an image belong to few of its entries.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ... import IGNORE
from ..cells import SIZES, first_largest, label_at, largest_logit, row_ends, tile, way
from ..compile import CompileCase, Work
from ..dispatch import use_op
from ..pixel_loss import check_targets
from ..rows import to_rows
from ..upsample import stride_of, upsample_logits


def confusion_reference(logits: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """Count in plain PyTorch: (num_classes, num_classes) int64."""
    full = logits if logits.dtype == torch.float64 else logits.float()
    predicted = upsample_logits(full, (mask.shape[1], mask.shape[2])).argmax(1)
    true = mask.long()
    counted = (true != IGNORE) & (true >= 0) & (true < num_classes)
    pair = (true * num_classes + predicted)[counted]
    return torch.bincount(pair, minlength=num_classes**2).view(num_classes, num_classes)


@triton.jit(do_not_specialize=SIZES)
def _confusion_kernel(
    row_ptr,
    mask_ptr,
    table_ptr,
    H,
    W,
    h,
    w,
    stride,
    ignore,
    strips,
    copies,
    NUM_CLASSES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Count the pixels of one strip of one row of cells."""
    pid = tl.program_id(0)
    n = (pid // ((h + 1) * strips)).to(tl.int64)
    k = pid // strips % (h + 1)
    lane = tl.arange(0, BLOCK_B)
    col = pid % strips * BLOCK_B + lane
    cls = tl.arange(0, BLOCK_C)[:, None]
    half = (stride + 1) // 2
    table = table_ptr + (pid % copies) * NUM_CLASSES * NUM_CLASSES
    for dy in range(stride):
        # A block: the interpreter cannot mix scalars and blocks in a mask.
        y = k * stride - half + dy + lane * 0
        rows = row_ptr + n * NUM_CLASSES * h * w
        down = way(dy, stride, k, h)
        left, right = row_ends(rows, k, down, col, cls, h, w, NUM_CLASSES)
        slope = right - left
        for dx in range(stride):
            x = col * stride - half + dx
            inside = (x >= 0) & (x < W) & (y >= 0) & (y < H) & (col <= w)
            true = label_at(mask_ptr + (n * H + y) * W + x, inside, ignore)
            z = left + slope * way(dx, stride, col, w)[None, :]
            largest = largest_logit(z, cls, NUM_CLASSES)
            predicted = first_largest(z, largest, cls, NUM_CLASSES)
            counted = inside & (true != ignore) & (true >= 0) & (true < NUM_CLASSES)
            counted = counted & (predicted < NUM_CLASSES)
            pair = true * NUM_CLASSES + predicted
            tl.atomic_add(table + pair, lane * 0 + 1, mask=counted, sem="relaxed")


@torch.library.custom_op("warpseg::confusion", mutates_args=())
def _confusion(logits: Tensor, mask: Tensor) -> Tensor:
    batch, classes, h, w = logits.shape
    block_c, lanes, warps = tile(classes)
    strips = triton.cdiv(w + 1, lanes)
    copies = max(1, min(64, 2**18 // classes**2))
    table = torch.zeros((copies, classes, classes), dtype=torch.int32, device=logits.device)
    constants: dict[str, Any] = {
        "NUM_CLASSES": classes,
        "BLOCK_C": block_c,
        "BLOCK_B": lanes,
        "num_warps": warps,
    }
    if mask.numel():
        with torch.cuda.device_of(logits):
            _confusion_kernel[(batch * (h + 1) * strips,)](
                to_rows(logits),
                mask.contiguous(),
                table,
                mask.shape[1],
                mask.shape[2],
                h,
                w,
                stride_of(logits, (mask.shape[1], mask.shape[2])),
                IGNORE,
                strips,
                copies,
                **constants,
            )
    return table.sum(0)


@_confusion.register_fake
def _(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.new_empty((logits.shape[1], logits.shape[1]), dtype=torch.int64)


def confusion(logits: Tensor, mask: Tensor, num_classes: int, out: Tensor | None = None) -> Tensor:
    """Return (C, C) int64 counts on the logits' device: rows true class, columns predicted.

    `logits` (N, C, h, w) at stride s, `mask` (N, H, W) of integers; pixels of IGNORE, or of no
    class, are not counted. With `out` the counts are added to it, and it is returned. No gradient,
    no host sync.

    Raises ValueError for shapes and dtypes that do not fit.
    """
    check_targets(logits, mask)
    if logits.shape[1] != num_classes:
        raise ValueError(f"logits have {logits.shape[1]} classes; expected {num_classes}")
    if out is not None and (out.shape != (num_classes, num_classes) or out.dtype != torch.int64):
        raise ValueError(
            f"out must be ({num_classes}, {num_classes}) int64; got {tuple(out.shape)} {out.dtype}"
        )
    logits = logits.detach()
    if use_op(logits, mask):
        counts = _confusion(logits, mask)
    else:
        counts = confusion_reference(logits, mask, num_classes)
    return counts if out is None else out.add_(counts)


def compile_cases() -> list[CompileCase]:
    """List the kernel at the recipes' class counts, for bfloat16 logits at stride 4."""
    cases = []
    for classes in (19, 21, 150):
        block_c, lanes, warps = tile(classes)
        pointers = {"row_ptr": "*bf16", "mask_ptr": "*u8", "table_ptr": "*i32"}
        scalars = ("H", "W", "h", "w", "stride", "ignore", "strips", "copies")
        cases.append(
            CompileCase(
                name=f"confusion/C{classes}",
                kernel=_confusion_kernel,
                signature=pointers | dict.fromkeys(scalars, "i32"),
                constexprs={"NUM_CLASSES": classes, "BLOCK_C": block_c, "BLOCK_B": lanes},
                num_warps=warps,
                work=Work(8 * 768**2, 8 * 193 * triton.cdiv(193, lanes), (4, 4)),
                bytes_per_pixel=1 + 2 * classes / 16,
                floor_bytes_per_pixel=1 + 2 * classes / 16,
            )
        )
    return cases
