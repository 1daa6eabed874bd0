"""Online hard example mining: which labeled pixels are worth learning, from stride-s logits.

    p_i = softmax(z_i)[y_i],     z = bilinear upsampling of the logits
    t   = max(threshold, the least-th smallest p of the pixels that are not IGNORE)
    hard pixels: p_i <= t; all of them where there are fewer than `least`

(Shrivastava et al. 2016, in the form of UniMatch, U2PL and TorchSemiSeg on Cityscapes, with .7 and
100 000 or 200 000.) One kernel writes p, five passes of `select` find t exactly and without
a host sync, and the loss is `cross_entropy` of the mask that is left: a map of all classes at full
resolution never exists. Bytes per pixel: 1 read and 4 written for p, 20 for t, 6 for the mask;
3bC/s^2 for logits of b bytes (turned to class rows once). Floor: 5 + bC/s^2 and one read of p.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ... import IGNORE
from ..cells import SIZES, exponentials, label_at, largest_logit, logit_of, row_ends, tile, way
from ..compile import CompileCase, Work
from ..dispatch import use_op
from ..pixel_loss import check_targets, pixel_terms
from ..rows import to_rows
from ..upsample import stride_of
from .quantile import select

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false


def target_prob_reference(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the probability of each pixel's class (N, H, W), 1 where it is IGNORE."""
    terms = pixel_terms(logits.detach(), mask)
    return torch.where(terms.kept, terms.target_log_prob.exp(), 1)


@triton.jit(do_not_specialize=SIZES)
def _target_prob_kernel(
    row_ptr,
    mask_ptr,
    prob_ptr,
    H,
    W,
    h,
    w,
    stride,
    ignore,
    strips,
    NUM_CLASSES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Write the target's probability at the pixels of one strip of one row of cells."""
    pid = tl.program_id(0)
    n = (pid // ((h + 1) * strips)).to(tl.int64)
    k = pid // strips % (h + 1)
    lane = tl.arange(0, BLOCK_B)
    col = pid % strips * BLOCK_B + lane
    cls = tl.arange(0, BLOCK_C)[:, None]
    half = (stride + 1) // 2
    rows = row_ptr + n * NUM_CLASSES * h * w
    for dy in range(stride):
        # A block: the interpreter cannot mix scalars and blocks in a mask.
        y = k * stride - half + dy + lane * 0
        down = way(dy, stride, k, h)
        left, right = row_ends(rows, k, down, col, cls, h, w, NUM_CLASSES)
        slope = right - left
        for dx in range(stride):
            x = col * stride - half + dx
            inside = (x >= 0) & (x < W) & (y >= 0) & (y < H) & (col <= w)
            place = (n * H + y) * W + x
            target = label_at(mask_ptr + place, inside, ignore)
            z = left + slope * way(dx, stride, col, w)[None, :]
            largest = largest_logit(z, cls, NUM_CLASSES)
            total = tl.sum(exponentials(z, largest, cls, NUM_CLASSES), 0)
            own = logit_of(z, cls, target, NUM_CLASSES) - largest
            prob = tl.exp2(own * 1.4426950408889634) / total
            known = (target >= 0) & (target < NUM_CLASSES)
            prob = tl.where(known, prob, float("nan"))
            tl.store(prob_ptr + place, tl.where(target == ignore, 1.0, prob), mask=inside)


@torch.library.custom_op("warpseg::target_prob", mutates_args=())
def _target_prob(logits: Tensor, mask: Tensor) -> Tensor:
    prob = _output(logits, mask)
    batch, classes, h, w = logits.shape
    if not prob.numel():
        return prob
    block_c, lanes, warps = tile(classes)
    strips = triton.cdiv(w + 1, lanes)
    constants: dict[str, Any] = {
        "NUM_CLASSES": classes,
        "BLOCK_C": block_c,
        "BLOCK_B": lanes,
        "num_warps": warps,
    }
    height, width = mask.shape[1:]
    with torch.cuda.device_of(logits):
        _target_prob_kernel[(batch * (h + 1) * strips,)](
            to_rows(logits),
            mask.contiguous(),
            prob,
            height,
            width,
            h,
            w,
            stride_of(logits, (height, width)),
            IGNORE,
            strips,
            **constants,
        )
    return prob


@_target_prob.register_fake
def _output(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.new_empty(tuple(mask.shape), dtype=torch.float32)


def target_prob(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the probability of each pixel's class, (N, H, W) float32 in [0, 1], without gradient.

    `logits` (N, C, h, w) at stride s of any float dtype and memory format; `mask` (N, H, W) of
    integers. It is 1 where the mask is IGNORE; a value of no class is an
    error on the CPU and NaN on a GPU.

    Raises ValueError for shapes and dtypes that do not fit.
    """
    check_targets(logits, mask)
    if use_op(logits, mask):
        return _target_prob(logits.detach(), mask)
    return target_prob_reference(logits, mask)


def hard_pixels(
    logits: Tensor, mask: Tensor, *, threshold: float = 0.7, least: int = 100_000
) -> Tensor:
    """Return the mask with IGNORE at the pixels that are learned well enough (OHEM).

    `logits` (N, C, h, w) at stride s, `mask` (N, H, W) of integers. Kept are the pixels of the
    batch whose class has a probability of at most `threshold`, and at least the `least` hardest,
    with all that equal the easiest of them. No gradient, no host sync: the loss is `cross_entropy`
    of the same logits and the returned mask.

    Raises ValueError for shapes and numbers that do not fit.
    """
    if not 0 <= threshold <= 1 or least < 1:
        raise ValueError(
            f"threshold must lie in [0, 1] and least be 1 or more; got {threshold} and {least}"
        )
    prob = target_prob(logits, mask)
    valid = mask != IGNORE
    rank = torch.full((), least - 1, device=mask.device)
    hardest, _ = select(prob, rank, mask=valid)
    bound = torch.where(valid.sum() < least, torch.inf, hardest.clamp(min=threshold))
    # Not p <= t: a mask value that is no class has to reach the loss, which then is NaN.
    return mask.masked_fill(prob > bound, IGNORE)


def compile_cases() -> list[CompileCase]:
    """List the kernel at the recipes' class counts, for bfloat16 logits at stride 4."""
    cases = []
    for classes in (19, 21, 150):
        block_c, lanes, warps = tile(classes)
        sizes = ("H", "W", "h", "w", "stride", "ignore", "strips")
        pointers = {"row_ptr": "*bf16", "mask_ptr": "*u8", "prob_ptr": "*fp32"}
        cases.append(
            CompileCase(
                name=f"target_prob/C{classes}",
                kernel=_target_prob_kernel,
                signature=pointers | dict.fromkeys(sizes, "i32"),
                constexprs={"NUM_CLASSES": classes, "BLOCK_C": block_c, "BLOCK_B": lanes},
                num_warps=warps,
                work=Work(8 * 768**2, 8 * 193 * triton.cdiv(193, lanes), (4, 4)),
                bytes_per_pixel=5 + 2 * classes / 16,
                floor_bytes_per_pixel=5 + 2 * classes / 16,
            )
        )
    return cases
