"""The network of a run, as settings."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Which network is trained, and from what."""

    name: str = "swiftnet-rn18"
    """a name that `warpseg models` lists"""
    weights: str = "none"
    """none (from scratch), imagenet (torchvision's), or a file of weights"""
    sync_batch_norm: bool = False
    """batch statistics over all ranks"""
