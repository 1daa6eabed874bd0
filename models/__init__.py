"""Networks that return logits at their own output stride."""

from .build import NETWORKS, build_network
from .network import SegmentationNetwork, count_parameters
from .norm import batch_norm_policy

__all__ = [
    "NETWORKS",
    "SegmentationNetwork",
    "batch_norm_policy",
    "build_network",
    "count_parameters",
]
