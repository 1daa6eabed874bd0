"""What a head is, and the heads by name.

    @HEADS.register("mine")
    def mine(encoder: Encoder, num_classes: int, *, width: int = 64) -> Head: ...

A head looks at the encoder's `channels` and `reductions`. Its options are keyword arguments; one
named `encoder_stride` is the `output_stride` that the encoder is built with.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ...registry import Registry


@dataclass(frozen=True)
class Head:
    """The modules behind an encoder."""

    decoder: nn.Module
    """From a tuple of features, fine to coarse, to one feature (N,A,h,w)."""
    classifier: nn.Module
    """From that feature to logits (N,C,h,w)."""
    output_stride: int
    """s: h is ceil(H/s) for an image of H rows, or more, where the head pads."""
    multiple: int = 1
    """Heights and widths of images that the head needs; others are padded."""


HEADS: Registry[Callable[..., Head]] = Registry("head", modules=str(__package__))
"""Name -> builder(encoder, num_classes, **options)."""
