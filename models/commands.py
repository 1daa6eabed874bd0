"""The verb `models`: list the networks with their size and cost.

warpseg models
warpseg models --size 1024 2048 --precision fp32
warpseg models swiftnet-timm:efficientnet_b3 dpt-dinov3-b16
"""

from typing import Literal

import tyro


def models(arguments: list[str]) -> int:
    """List the networks."""
    return tyro.cli(_list, args=arguments, prog="warpseg models")


def _list(
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    *,
    size: tuple[int, int] | None = None,
    num_classes: int = 19,
    precision: Literal["bf16", "fp32"] = "bf16",
) -> int:
    """List networks with parameters, output stride, FLOPs, activation memory, and of the encoder's
    published weights the licence and the file.

    FLOPs are those of one image's forward pass, a multiply-add counting as two. Activation memory
    is what one image keeps for the backward pass. Nothing is computed or downloaded.

    A name is HEAD-ENCODER: any head goes with any encoder, and any encoder of timm is timm:NAME.

    Args:
        names: networks; those of the papers and some others, if not given
        size: height and width of the image in pixels; 512 512, and 32 32 for wrn-28-2, if not given
        num_classes: number of classes
        precision: type of the activations
    """
    import torch

    from .build import TIMM
    from .cost import SOURCE, cost_table
    from .encoders.registry import ENCODERS
    from .heads.head import HEADS

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rows = cost_table(size, num_classes, dtype, names)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        numbers, words = others[: -len(SOURCE)], others[-len(SOURCE) :]
        cells = [text.rjust(width) for text, width in zip(numbers, widths[1:], strict=False)]
        cells += [
            text.ljust(width) for text, width in zip(words, widths[-len(SOURCE) :], strict=True)
        ]
        print("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    if not names:
        print(f"\nHEAD-ENCODER with the heads {', '.join(HEADS)}")
        print(f"and the encoders {', '.join(ENCODERS)}, {TIMM}NAME")
    return 0
