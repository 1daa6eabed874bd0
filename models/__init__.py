"""Networks that return logits at their own output stride."""

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .build import NETWORKS as NETWORKS
    from .build import build_network as build_network
    from .ensemble import Ensemble as Ensemble
    from .network import SegmentationNetwork as SegmentationNetwork
    from .network import count_parameters as count_parameters
    from .norm import batch_norm_policy as batch_norm_policy
    from .norm import convert_dsbn as convert_dsbn
    from .norm import dsbn_branch as dsbn_branch
    from .norm import plain_state_dict as plain_state_dict
    from .norm import remove_dsbn as remove_dsbn
    from .norm import set_batch_norm_momentum as set_batch_norm_momentum
    from .weights import WeightsReport as WeightsReport
    from .weights import load_weights as load_weights

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".build": (
            "NETWORKS",
            "build_network",
        ),
        ".ensemble": ("Ensemble",),
        ".network": (
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
        ".weights": (
            "WeightsReport",
            "load_weights",
        ),
    },
)
