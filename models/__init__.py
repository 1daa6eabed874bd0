"""Networks that return logits at their own output stride."""

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .build import NETWORKS as NETWORKS
    from .build import build_network as build_network
    from .encoders.registry import ENCODERS as ENCODERS
    from .ensemble import Ensemble as Ensemble
    from .heads.head import HEADS as HEADS
    from .heads.head import Head as Head
    from .low_rank import adapt_attention as adapt_attention
    from .low_rank import merge_low_rank as merge_low_rank
    from .network import Encoder as Encoder
    from .network import SegmentationNetwork as SegmentationNetwork
    from .network import count_parameters as count_parameters
    from .norm import batch_norm_policy as batch_norm_policy
    from .norm import convert_dsbn as convert_dsbn
    from .norm import dsbn_branch as dsbn_branch
    from .norm import plain_state_dict as plain_state_dict
    from .norm import remove_dsbn as remove_dsbn
    from .norm import set_batch_norm_momentum as set_batch_norm_momentum
    from .weights.load import WeightsReport as WeightsReport
    from .weights.load import load_weights as load_weights

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".build": (
            "NETWORKS",
            "build_network",
        ),
        ".encoders.registry": ("ENCODERS",),
        ".ensemble": ("Ensemble",),
        ".heads.head": (
            "HEADS",
            "Head",
        ),
        ".low_rank": (
            "adapt_attention",
            "merge_low_rank",
        ),
        ".network": (
            "Encoder",
            "SegmentationNetwork",
            "count_parameters",
        ),
        ".norm": (
            "batch_norm_policy",
            "convert_dsbn",
            "dsbn_branch",
            "plain_state_dict",
            "remove_dsbn",
            "set_batch_norm_momentum",
        ),
        ".weights.load": (
            "WeightsReport",
            "load_weights",
        ),
    },
)
