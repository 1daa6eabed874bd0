"""Networks that return logits at their own output stride."""

from .build import NETWORKS, build_network
from .encoders.registry import ENCODERS
from .ensemble import Ensemble
from .heads.head import HEADS, Head
from .low_rank import adapt_attention, merge_low_rank
from .network import Encoder, SegmentationNetwork, count_parameters
from .norm import (
    batch_norm_policy,
    convert_dsbn,
    dsbn_branch,
    plain_state_dict,
    remove_dsbn,
    set_batch_norm_momentum,
)
from .weights.load import WeightsReport, load_weights

__all__ = [
    "ENCODERS",
    "HEADS",
    "NETWORKS",
    "Encoder",
    "Ensemble",
    "Head",
    "SegmentationNetwork",
    "WeightsReport",
    "adapt_attention",
    "batch_norm_policy",
    "build_network",
    "convert_dsbn",
    "count_parameters",
    "dsbn_branch",
    "load_weights",
    "merge_low_rank",
    "plain_state_dict",
    "remove_dsbn",
    "set_batch_norm_momentum",
]
