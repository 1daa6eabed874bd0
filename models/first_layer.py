"""The first layer of an encoder for images of other channels than three.

Pretrained filters are repeated over the channels, in order, and scaled by 3/N, so that an image
whose channels are alike is answered as one of three was; of one channel they are summed, which is
the same for grey pictures. That is the rule of timm (its `in_chans`). Filters that are new are
drawn with the spread that those of three channels would have.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

RGB = 3
MOST = 16
"""Channels that images may have."""


def adapt_filters(weight: Tensor, channels: int) -> Tensor:
    """Return filters (O, channels, k, k) made of pretrained ones of three channels, (O, 3, k, k).

    One channel takes the sum of the three; others take them in turn, times 3 / channels.
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    times = math.ceil(channels / RGB)
    return weight.repeat(1, times, 1, 1)[:, :channels] * (RGB / channels)


def first_layer(module: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return the name and the convolution that an encoder sees images by: its first.

    Raises ValueError where the encoder has no convolution of three channels before all others.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            if part.in_channels != RGB or part.groups != 1:
                break
            return name, part
    raise ValueError(
        f"{type(module).__name__} has no first convolution of three channels, which would be "
        "adapted to others: choose another encoder"
    )


def take_channels(backbone: nn.Module, channels: int) -> str:
    """Let an encoder take images of `channels` channels, its first filters drawn anew; return the
    name of their weight.

    Raises ValueError for a number that images cannot have, and as `first_layer`.
    """
    if not 1 <= channels <= MOST:
        raise ValueError(f"in_channels must be 1 to {MOST}; got {channels}")
    name, layer = first_layer(backbone)
    if channels != RGB:
        spread = layer.weight.detach().square().mean().sqrt()
        shape = (layer.out_channels, channels, *layer.kernel_size)
        layer.in_channels = channels
        layer.weight = nn.Parameter(torch.randn(shape) * spread)
    return f"{name}.weight"
