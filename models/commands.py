"""The verb `models`: list the networks with their size and cost.

warpseg models
warpseg models --size 1024 2048 --precision fp32
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import tyro
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .build import NETWORKS, build_network
from .network import count_parameters

VARIANTS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    *((name, {}) for name in NETWORKS),
    ("deeplabv3plus-rn50", {"head": "mkd"}),
    ("deeplabv3plus-rn101", {"head": "mkd"}),
    ("deeplabv3plus-rn101", {"head": "gta"}),
)
"""Rows of the table: names with their defaults, then the papers' heads."""

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
"""Precision -> type of the activations."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network costs."""

    parameters: int
    output_stride: int
    flops: int
    """Of one forward pass of one image; a multiply-add counts as two."""
    activations: int
    """Bytes that one image's forward pass keeps for its backward pass, parameters excluded."""


def measure(
    name: str,
    num_classes: int,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    options: Mapping[str, Any] | None = None,
) -> Cost:
    """Measure a network on the meta device, which computes shapes only, for images of `size`."""
    with torch.device("meta"):
        network = build_network(name, num_classes, **(options or {})).to(dtype)
        # Two images: one alone has no batch statistics after image pooling.
        image = torch.empty(2, 3, *size, dtype=dtype).to(memory_format=torch.channels_last)
        # Inside: the counter may decompose an operation into ones that make tensors.
        with FlopCounterMode(display=False) as counter:
            activations = _saved_bytes(network, image)
    return Cost(
        parameters=count_parameters(network),
        output_stride=network.output_stride,
        flops=counter.get_total_flops() // 2,
        activations=activations // 2,
    )


def _saved_bytes(network: nn.Module, image: torch.Tensor) -> int:
    """Return the bytes that autograd saves in a training forward pass, each storage once."""
    own = {p.untyped_storage()._cdata for p in (*network.parameters(), *network.buffers())}
    # Held, so that no address is used twice.
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network.train()(image)
    return sum(storage.nbytes() for storage in saved.values())


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
    head = ("network", "image", "parameters", "stride", "GFLOPs", "activations MiB")
    rows: list[tuple[str, ...]] = [head]
    for name, options in VARIANTS:
        image = size or ((32, 32) if name.startswith("wrn") else (512, 512))
        cost = measure(name, num_classes, image, DTYPES[precision], options)
        rows.append(
            (
                " ".join([name, *(f"{key}={value}" for key, value in options.items())]),
                f"{image[0]} x {image[1]}",
                f"{cost.parameters:,}",
                str(cost.output_stride),
                f"{cost.flops / 1e9:.1f}",
                f"{cost.activations / 2**20:.1f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))
    return 0
