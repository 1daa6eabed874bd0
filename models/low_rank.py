"""Low-rank adaptation (LoRA) of attention: W + (alpha / rank) up down, W frozen.

    adapt_attention(network, rank=8, alpha=8)       before the optimizer is built
    state = merge_low_rank(network.state_dict())    the state of the plain network

The sum is made by a parametrization, so whoever reads `weight` reads the adapted one. Source: Hu et
al., "LoRA: Low-rank adaptation of large language models".
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .network import SegmentationNetwork

PROJECTIONS = frozenset(
    ("qkv", "q", "k", "v", "kv", "q_proj", "k_proj", "v_proj", "query", "key", "value", "proj")
)
"""Names of the linear layers of attention."""

_INSIDE = ".parametrizations.weight."


class LowRank(nn.Module):
    """Add a product of rank r, which starts as zero, to a weight."""

    scale: Tensor

    def __init__(self, outputs: int, inputs: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        self.register_buffer("scale", torch.tensor(alpha / rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted weight (outputs, inputs)."""
        return weight + self.scale * (self.up @ self.down)


def adapt_attention(network: SegmentationNetwork, rank: int, alpha: float) -> None:
    """Freeze a network's backbone but for a low-rank part of each projection of its attention.

    Raises ValueError for a backbone without attention, and a rank that is none.
    """
    if rank < 1:
        raise ValueError(f"the rank of an adaptation must be at least 1; got {rank}")
    found = [
        layer
        for module in network.backbone.modules()
        if _attends(module)
        for name, layer in module.named_children()
        if name in PROJECTIONS and isinstance(layer, nn.Linear)
    ]
    if not found:
        raise ValueError(
            f"{network.name} has no attention to adapt: leave out --network.lora-rank, or choose "
            "a vision transformer such as dpt-dinov2-s14"
        )
    network.freeze_backbone()
    # Adapted parts learn: dropped paths and dropout stay those of training.
    network.frozen = False
    network.backbone.train(network.training)
    for layer in found:
        outputs, inputs = layer.weight.shape
        part = LowRank(outputs, inputs, rank, alpha)
        parametrize.register_parametrization(layer, "weight", part)


def _attends(module: nn.Module) -> bool:
    return "attn" in type(module).__name__.lower() or "attention" in type(module).__name__.lower()


def merge_low_rank(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state whose adapted weights are plain ones; other states as they are."""
    merged = {}
    for name, value in state.items():
        if _INSIDE not in name:
            merged[name] = value
        elif name.endswith(_INSIDE + "original"):
            start = name.removesuffix("original")
            up, down, scale = (state[f"{start}0.{part}"] for part in ("up", "down", "scale"))
            merged[name.replace(_INSIDE + "original", ".weight")] = value + scale * (up @ down)
    return merged
