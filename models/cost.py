"""What networks cost: parameters, FLOPs and activation memory, computed from shapes alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .build import NETWORKS, build_network
from .network import count_parameters, trait
from .weights.licences import said_of

VARIANTS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    *((name, {}) for name in NETWORKS),
    ("deeplabv3plus-rn50", {"head": "mkd"}),
    ("deeplabv3plus-rn101", {"head": "mkd"}),
    ("deeplabv3plus-rn101", {"head": "gta"}),
    ("swiftnet-lite0", {}),
    *((f"dpt-dinov2-{size}14", {}) for size in "sbl"),
    *((f"dpt-dinov3-{size}", {}) for size in ("s16", "s16plus", "b16", "l16")),
    ("light-dinov2-s14", {}),
    ("linear-dinov2-s14", {}),
    ("swiftnet-dinov3-convnext-tiny", {}),
    ("swiftnet-timm:resnet50", {}),
    ("deeplabv3plus-timm:regnety_016", {}),
)
"""Rows of the table: the papers' networks with their defaults and heads, then some of the many
HEAD-ENCODER."""

SOURCE = ("licence of the weights", "weights")
"""Headings of the columns that are words."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network costs."""

    parameters: int
    output_stride: int
    flops: int
    """Of one forward pass of one image; a multiply-add counts as two."""
    activations: int
    """Bytes that one image's forward pass keeps for its backward pass, parameters excluded."""
    licence: str = ""
    """Of the encoder's published weights."""
    weights: str = ""
    """Where those are."""


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
        image = torch.empty(2, network.in_channels, *size, dtype=dtype)
        image = image.to(memory_format=torch.channels_last)
        # Inside: the counter may decompose an operation into ones that make tensors.
        with FlopCounterMode(display=False) as counter:
            activations = _saved_bytes(network, image)
    return Cost(
        parameters=count_parameters(network),
        output_stride=network.output_stride,
        flops=counter.get_total_flops() // 2,
        activations=activations // 2,
        licence=trait(network.backbone, "licence"),
        weights=trait(network.backbone, "weight_file"),
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


def cost_table(
    size: tuple[int, int] | None,
    num_classes: int,
    dtype: torch.dtype,
    names: Sequence[str] = (),
) -> list[tuple[str, ...]]:
    """Return the rows of `warpseg models`, headings first; size and names as there."""
    head = ("network", "image", "parameters", "stride", "GFLOPs", "activations MiB", *SOURCE)
    rows: list[tuple[str, ...]] = [head]
    chosen = [(name, {}) for name in names] or VARIANTS
    for name, options in chosen:
        image = size or ((32, 32) if name.startswith("wrn") else (512, 512))
        cost = measure(name, num_classes, image, dtype, options)
        rows.append(
            (
                " ".join([name, *(f"{key}={value}" for key, value in options.items())]),
                f"{image[0]} x {image[1]}",
                f"{cost.parameters:,}",
                str(cost.output_stride),
                f"{cost.flops / 1e9:.1f}",
                f"{cost.activations / 2**20:.1f}",
                said_of(cost.licence),
                cost.weights or "-",
            )
        )
    return rows
