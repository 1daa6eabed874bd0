"""The host half of the cell kernel: make an operation of a loss's `pixel` function.

The losses (cross_entropy, dynamic_ce, reweight, self_correction) differ in one Triton function,
`pixel`, which the kernel of `cells.py` calls for one pixel per lane:

    loss, factor, target, kept, one, two, three = pixel(
        z, largest, total, cls, target, kept, n, place, map_ptr, table_ptr,
        first_parameter, second_parameter, third_parameter, NUM_CLASSES, OPTION)

z: (classes, lanes) logits, with their `largest` and `total` = sum_c exp(z_c - largest). n, place:
the image, and the pixel's index in a flat (N, H, W) map. factor: k in dL/dz = k (softmax(z) -
onehot(target)). target, kept: as they came, or changed. one to three: counts of the loss's own.

A loss's file holds its `pixel`, calls `launch` in a `torch.library` operation, `register` on that,
and `loss_cases` in its `compile_cases`. The kernel computes the gradient of the summed loss with
the loss itself, so that backward only scales it.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from ..cells import _cell_loss_kernel, tile
from ..compile import CompileCase, Work
from ..layout import check_indices
from ..rows import scale_gradient, to_rows
from ..upsample import stride_of

COUNTS = 4
"""Per-pixel counts summed beside the loss: kept pixels, and three of the operation's own."""

_PROGRAMS = 1024
"""Enough warps to fill the largest device about once; shorter segments than that cost overlap."""


def launch(
    pixel: Any,
    logits: Tensor,
    target: Tensor,
    *,
    ignore: int,
    option: Any = 0,
    map: Tensor | None = None,
    table: Tensor | None = None,
    parameters: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> tuple[Tensor, Tensor]:
    """Run the cell kernel with one operation's `pixel` function.

    Returns the sums over all pixels, (1 + COUNTS,) float32: loss, kept pixels, the operation's
    counts; and the loss's gradient, (N, h, C, w) float32. `map` is a (N, H, W) map and
    `table` a small vector that the pixel function reads.
    """
    batch, classes, h, w = logits.shape
    check_indices(classes * h * w)
    gradient, totals = empty_outputs(logits)
    if not target.numel() or not logits.numel():
        return totals.zero_(), gradient.zero_()
    rows, target = to_rows(logits), target.contiguous()
    block_c, lanes, warps = tile(classes)
    strips = triton.cdiv(w, lanes - 1)
    segment = _segment(batch * strips, h)
    segments = triton.cdiv(h, segment)
    programs = batch * segments * strips
    constants: dict[str, Any] = {
        "PIXEL": pixel,
        "OPTION": option,
        "NUM_CLASSES": classes,
        "BLOCK_C": block_c,
        "BLOCK_B": lanes,
        "num_warps": warps,
    }
    partial = torch.empty((1 + COUNTS, programs), dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(logits):
        _cell_loss_kernel[(programs,)](
            rows,
            target,
            target if map is None else map.contiguous(),
            target if table is None else table.contiguous(),
            gradient,
            partial,
            *parameters,
            target.shape[1],
            target.shape[2],
            h,
            w,
            stride_of(logits, (target.shape[1], target.shape[2])),
            ignore,
            segment,
            segments,
            strips,
            **constants,
        )
    return partial.sum(1, dtype=torch.float64).float(), gradient


def empty_outputs(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return an unwritten gradient (class rows) and totals, as the operations return them."""
    batch, classes, h, w = logits.shape
    gradient = torch.empty((batch, h, classes, w), dtype=torch.float32, device=logits.device)
    totals = torch.empty((1 + COUNTS,), dtype=torch.float32, device=logits.device)
    return gradient, totals


def _segment(columns: int, h: int) -> int:
    """Return how many rows of logits a program finishes: long where there are programs enough."""
    for segment in (16, 8, 4):
        if columns * triton.cdiv(h, segment) >= _PROGRAMS:
            return segment
    return 2


def register(operation: Any) -> None:
    """Give a `torch.library` operation its fake and its backward.

    The operation takes the logits first and returns (totals, gradient) as `launch` does. Backward
    multiplies the gradient by the upstream factor of the loss, in the logits' dtype and format.
    """

    def fake(logits: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        gradient, totals = empty_outputs(logits)
        return totals, gradient

    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # zeros as large as the gradient, for nobody
        ctx.dtype, ctx.channels_last = inputs[0].dtype, not inputs[0].is_contiguous()
        ctx.others = (None,) * (len(inputs) - 1)

    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple:
        (gradient,) = ctx.saved_tensors
        return scale_gradient(gradient, upstream[0], ctx.dtype, ctx.channels_last), *ctx.others

    operation.register_fake(fake)
    operation.register_autograd(backward, setup_context=setup_context)


def loss_cases(
    name: str,
    pixel: Any,
    *,
    options: tuple[Any, ...] = (0,),
    map: str | None = None,
    table: str | None = None,
    classes: tuple[int, ...] = (21,),
    describe: Callable[[Any], str] = str,
) -> list[CompileCase]:
    """List one operation's kernels at the recipes' class counts, for bfloat16 logits at stride 4.

    The stride is an argument of the kernel, so that the same code serves every stride.
    """
    cases = []
    for option in options:
        for count in classes:
            block_c, lanes, warps = tile(count)
            per_pixel = count / 16
            maps = 1 + (4 if map else 0)
            signature = {
                "row_ptr": "*bf16",
                "target_ptr": "*u8",
                "map_ptr": map or "*u8",
                "table_ptr": table or "*u8",
                "gradient_ptr": "*fp32",
                "total_ptr": "*fp32",
                **{f"{place}_parameter": "fp32" for place in ("first", "second", "third")},
            }
            constexprs = {
                "PIXEL": pixel,
                "OPTION": option,
                "NUM_CLASSES": count,
                "BLOCK_C": block_c,
                "BLOCK_B": lanes,
            }
            for parameter in _cell_loss_kernel.arg_names:
                if parameter not in signature and parameter not in constexprs:
                    signature[parameter] = "i32"
            segment = _segment(8 * triton.cdiv(192, lanes - 1), 192)
            programs = 8 * triton.cdiv(192, lanes - 1) * triton.cdiv(192, segment)
            suffix = f"-{describe(option)}" if len(options) > 1 else ""
            cases.append(
                CompileCase(
                    name=f"{name}{suffix}/C{count}",
                    kernel=_cell_loss_kernel,
                    signature=signature,
                    constexprs=constexprs,
                    num_warps=warps,
                    bytes_per_pixel=maps + (2 + 4) * per_pixel,
                    floor_bytes_per_pixel=maps + (2 + 2) * per_pixel,
                    work=Work(8 * 768**2, programs, (4 * (segment + 1), 4)),
                )
            )
    return cases
