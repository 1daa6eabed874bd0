"""Bilinear upsampling from stride s, as every pixel operation here understands it.

Logits at stride s are (N, C, h, w) with h = ceil(H / s), w = ceil(W / s) for a map of H x W pixels.
Half-pixel centres at the exact stride: pixel y lies at (y + 1/2) / s - 1/2 of the coarse grid, with
clamped borders. The kernels interpolate in registers; this file is the definition that they meet.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PREFERRED_STRIDES = (1, 2, 4, 8, 16, 32)
MASKED = -1e38
"""What stands for -inf: no softmax can tell it from that, and it is finite times log2(e) still."""
LOWEST = -1e30
"""What lies below has a part of MASKED in it."""


def stride_of(logits: Tensor, size: tuple[int, int]) -> int:
    """Return the integer stride s with ceil(H / s) = h and ceil(W / s) = w.

    `logits` is any tensor whose last two dimensions are h, w; `size` is (H, W) in pixels. Where
    several fit, as on a map of few cells, a power of two up to 32 is preferred, then the smallest.
    Raises ValueError, naming both sizes, where none fits.
    """
    (coarse_height, coarse_width), (height, width) = logits.shape[-2:], size
    lowest, highest = 1, max(height, width, PREFERRED_STRIDES[-1])
    for cells, pixels in ((coarse_height, height), (coarse_width, width)):
        # (cells - 1) s < pixels <= cells s
        lowest = max(lowest, -(-pixels // max(cells, 1)))
        highest = min(highest, (pixels - 1) // (cells - 1)) if cells > 1 else highest
    if not lowest <= highest or min(coarse_height, coarse_width, height, width) < 1:
        raise ValueError(
            f"logits of {coarse_height} x {coarse_width} do not fit a map of {height} x {width} "
            "pixels: no integer stride s gives ceil(height / s) x ceil(width / s)"
        )
    fits = (stride for stride in PREFERRED_STRIDES if lowest <= stride <= highest)
    return next(fits, lowest)


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample (N, C, h, w) to (N, C, H, W) bilinearly at the exact stride, in the dtype given.

    Equals `F.interpolate(scale_factor=s, mode="bilinear", align_corners=False)` cut to H x W.
    Differentiable. Raises ValueError where the sizes do not fit (`stride_of`).
    """
    stride = stride_of(logits, size)
    if stride > 1:
        logits = F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)
    return logits[..., : size[0], : size[1]]


def upsample_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample float32 or float64 logits, with MASKED for -inf, the logit of a masked class.

    Interpolation multiplies by 0 at the border, which makes NaN of an infinity.
    """
    return upsample(_Masked.apply(logits), size)


class _Masked(torch.autograd.Function):
    """`logits.clamp_min(MASKED)` whose gradient keeps the memory layout it comes in.

    A clamp's own lays it out like the logits, and what is summed of it later rounds otherwise.
    """

    @staticmethod
    def forward(ctx, logits):
        ctx.save_for_backward(logits)
        return logits.clamp_min(MASKED)

    @staticmethod
    def backward(ctx, *gradients):
        (logits,) = ctx.saved_tensors
        return gradients[0].masked_fill(logits < MASKED, 0)
