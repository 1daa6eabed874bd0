"""The verb `models`: list the networks with their size and cost.

warpseg models
warpseg models --size 1024 2048 --precision fp32
"""

from typing import Literal

import tyro


def models(arguments: list[str]) -> int:
    """List the networks."""
    return tyro.cli(_list, args=arguments, prog="warpseg models")


def _list(
    size: tuple[int, int] | None = None,
    num_classes: int = 19,
    precision: Literal["bf16", "fp32"] = "bf16",
) -> int:
    """List the networks with parameters, output stride, FLOPs and activation memory.

    FLOPs are those of one image's forward pass, a multiply-add counting as two. Activation memory
    is what one image keeps for the backward pass. Nothing is computed or downloaded.

    Args:
        size: height and width of the image in pixels; 512 512, and 32 32 for wrn-28-2, if not given
        num_classes: number of classes
        precision: type of the activations
    """
    import torch

    from .cost import cost_table

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rows = cost_table(size, num_classes, dtype)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))
    return 0
