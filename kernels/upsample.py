"""Bilinear upsampling from stride s, as every pixel operation here understands it.

Logits at stride s are (N, C, h, w) with h = ceil(H / s), w = ceil(W / s) for a map of H x W pixels.
Half-pixel centres at the exact stride: pixel y lies at (y + 1/2) / s - 1/2 of the coarse grid, with
clamped borders. The kernels interpolate in registers; this file is the definition that they meet.
"""

# pyright: reportPrivateImportUsage=false

from typing import Any

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


def upsample_log_prob(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-softmax (N, C, H, W) over the classes of `upsample_logits`, and its value
    (N, H, W) at the target, (N, H, W) int64, each a class.

    Float32 on a CPU goes image by image, which has the same bits in half of the time and keeps two
    maps of a batch less; so do shapes alone, by which memory is predicted.
    """
    fits = type(logits) is Tensor and logits.device.type in ("cpu", "meta")
    size = (target.shape[1], target.shape[2])
    fits = fits and logits.dtype == torch.float32 and stride_of(logits, size) > 1
    if fits and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
        return _LogProb.apply(logits, target)
    return _plain_log_prob(logits, target)


def _plain_log_prob(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    log_prob = upsample_logits(logits, (target.shape[1], target.shape[2])).log_softmax(1)
    return log_prob, log_prob.gather(1, target[:, None])[:, 0]


class _LogProb(torch.autograd.Function):
    """`_plain_log_prob` whose full-resolution maps, but for the results, are of one image and stay
    in the cache.

    Gradients are summed into coarse cells with the channels last, in PyTorch's own order: a third
    of what it takes along rows.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        size = (target.shape[1], target.shape[2])
        masked = logits.clamp_min(MASKED)
        out = masked.new_empty((*masked.shape[:2], *size))
        for image, place in zip(masked.split(1), out.split(1), strict=True):
            torch.ops.aten._log_softmax.out(upsample(image, size), 1, False, out=place)
        ctx.save_for_backward(logits, out, target)
        return out, out.gather(1, target[:, None])[:, 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        logits, out, target = ctx.saved_tensors
        asked = [(n, gradient) for n, gradient in enumerate(gradients) if gradient is not None]
        if torch.is_grad_enabled():  # who asks for second derivatives
            made = _plain_log_prob(logits, target)
            outputs, slopes = [made[n] for n, _ in asked], [gradient for _, gradient in asked]
            return torch.autograd.grad(outputs, logits, slopes, create_graph=True)[0], None
        slope = torch.empty_like(logits, memory_format=torch.contiguous_format)
        for n, log_prob in enumerate(out.split(1)):
            direct, picked = (None if g is None else g[n : n + 1] for g in gradients)
            full = torch.zeros_like(log_prob) if direct is None else direct
            if picked is not None:
                full = full if direct is None else full.clone()  # others may read what came in
                full.scatter_add_(1, target[n : n + 1, None], picked[:, None])
            slope[n : n + 1] = _cell_slopes(full, log_prob, logits.shape[-2:])
        return slope.masked_fill_(logits < MASKED, 0), None


def _cell_slopes(gradient: Tensor, log_prob: Tensor, cells: tuple[int, int]) -> Tensor:
    """Return the gradient of an image's coarse logits, given that of its log-probabilities."""
    stride = stride_of(log_prob.new_empty(cells), (log_prob.shape[-2], log_prob.shape[-1]))
    whole = [stride * side for side in cells]
    full = torch.ops.aten._log_softmax_backward_data(gradient, log_prob, 1, torch.float32)
    below, right = whole[0] - full.shape[-2], whole[1] - full.shape[-1]
    if below or right:
        full = F.pad(full, (0, right, 0, below))
    return torch.ops.aten.upsample_bilinear2d_backward(
        full.contiguous(memory_format=torch.channels_last),
        whole,
        [*log_prob.shape[:2], *cells],
        False,
        float(stride),
        float(stride),
    )


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
