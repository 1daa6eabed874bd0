"""The host half of the cell kernel: make an operation of a loss's `pixel` function.

The losses (cross_entropy, dynamic_ce, reweight, self_correction) differ in one Triton function,
`pixel`, which the kernels of `cells.py`, there and in `coarse`, call for one pixel per lane:

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
from itertools import chain, product
from typing import Any

import torch
from torch import Tensor

from ..cells import _cell_loss_kernel, tile
from ..compile import CompileCase, Work
from ..layout import check_indices
from ..rows import scale_gradient, to_rows
from ..upsample import stride_of
from .coarse.cells import coarse_loss_kernel
from .coarse.plan import COARSE, COLOURS, Plan, empty_planes, in_line, in_strips, is_coarse

COUNTS = 4
"""Per-pixel counts summed beside the loss: kept pixels, and three of the operation's own."""


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
    spread: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run the cell kernel with one operation's `pixel` function.

    Returns the sums over all pixels, (1 + COUNTS,) float32: loss, kept pixels, the operation's
    counts; and the loss's gradient, (N, h, C, w) float32. `map` is a (N, H, W) map and
    `table` a small vector that the pixel function reads. `spread`: as `tile` takes it.
    """
    batch, classes, h, w = logits.shape
    check_indices(classes * h * w)
    if not target.numel() or not logits.numel():
        gradient, totals = empty_outputs(logits)
        return totals.zero_(), gradient.zero_()
    stride = stride_of(logits, (target.shape[1], target.shape[2]))
    coarse = is_coarse(stride, classes)
    check_indices(target.shape[1] * target.shape[2] if coarse else 0)
    rows, target = to_rows(logits), target.contiguous()
    block_c, lanes, warps = tile(classes, spread)
    cell_kernel, plan = _planned(batch, h, w, stride, lanes, coarse)
    gradient, _ = empty_outputs(logits)
    out = empty_planes(gradient, plan) if coarse else gradient
    constants: dict[str, Any] = {
        "PIXEL": pixel,
        "OPTION": option,
        "NUM_CLASSES": classes,
        "BLOCK_C": block_c,
        "BLOCK_B": lanes,
        "num_warps": warps,
    }
    partial = torch.empty((1 + COUNTS, plan.programs), dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(logits):
        cell_kernel[(plan.programs,)](
            rows,
            target,
            target if map is None else map.contiguous(),
            target if table is None else table.contiguous(),
            out,
            partial,
            *parameters,
            target.shape[1],
            target.shape[2],
            h,
            w,
            stride,
            ignore,
            *plan.numbers,
            **constants,
        )
    if out is not gradient:
        torch.sum(out, 0, out=gradient)
    return partial.sum(1, dtype=torch.float64).float(), gradient


def _planned(batch: int, h: int, w: int, stride: int, lanes: int, coarse: bool) -> tuple[Any, Plan]:
    """Return the kernel for a map, and its programs."""
    if coarse:
        return coarse_loss_kernel, in_line(batch, h, w, stride, lanes)
    return _cell_loss_kernel, in_strips(batch, h, w, stride, lanes)


def empty_outputs(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return an unwritten gradient (class rows) and totals, as the operations return them."""
    batch, classes, h, w = logits.shape
    gradient = torch.empty((batch, h, classes, w), dtype=torch.float32, device=logits.device)
    totals = torch.empty((1 + COUNTS,), dtype=torch.float32, device=logits.device)
    return gradient, totals


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
    coarse: tuple[int, ...] = (21,),
    spread: bool = False,
    describe: Callable[[Any], str] = str,
) -> list[CompileCase]:
    """List one operation's kernels for bfloat16 logits, at the recipes' class counts.

    The stride is an argument of a kernel, so that the same code serves every stride below 8, and
    another every one from 8 on, with few classes: `classes` are listed at 4, `coarse` at 8.
    """
    pointers = {"map_ptr": map or "*u8", "table_ptr": table or "*u8"}
    cases = []
    for option in options:
        suffix = f"-{describe(option)}" if len(options) > 1 else ""
        for count, stride in chain(product(classes, (4,)), product(coarse, (COARSE,))):
            block_c, lanes, warps = tile(count, spread)
            constants = {"PIXEL": pixel, "OPTION": option, "NUM_CLASSES": count}
            constants |= {"BLOCK_C": block_c, "BLOCK_B": lanes}
            end = f"-s{COARSE}" if stride == COARSE else ""
            case = _loss_case(f"{name}{suffix}/C{count}{end}", pointers, constants, warps, stride)
            cases.append(case)
    return cases


def _loss_case(
    name: str, pointers: dict[str, str], constants: dict[str, Any], warps: int, stride: int
) -> CompileCase:
    """Return a case for 8 images of 768 x 768 pixels, of 512 x 512 at a coarse stride."""
    size = 512 if stride >= COARSE else 768
    sizes = 8, size // stride, size // stride, stride, constants["BLOCK_B"]
    kernel, plan = _planned(*sizes, stride >= COARSE)
    kinds = {"row_ptr": "*bf16", "target_ptr": "*u8", "gradient_ptr": "*fp32", "total_ptr": "*fp32"}
    kinds |= {f"{place}_parameter": "fp32" for place in ("first", "second", "third")} | pointers
    per_pixel = constants["NUM_CLASSES"] / stride**2
    maps = 1 + (4 if pointers["map_ptr"] != "*u8" else 0)
    planes = 2 * 4 * COLOURS * plan.numbers[-1] if stride >= COARSE else 0
    names = (name for name in kernel.arg_names if name not in constants)
    return CompileCase(
        name=name,
        kernel=kernel,
        signature={name: kinds.get(name, "i32") for name in names},
        constexprs=constants,
        num_warps=warps,
        bytes_per_pixel=maps + (2 + 4 + planes) * per_pixel,
        floor_bytes_per_pixel=maps + (2 + 2) * per_pixel,
        work=Work(8 * size**2, plan.programs, (plan.rows, stride)),
    )
