"""What every stream of training can be told."""

from typing import Any, TypedDict

import torch

from ...shards.pools.settings import PoolSettings
from ..normalization import NormalizationSettings
from ..settings import LoaderSettings


class StreamOptions(TypedDict, total=False):
    """What every stream of training can be told besides its geometry and batch size."""

    normalization: NormalizationSettings | str
    """statistics of the input, or their name; imagenet where not given"""
    loader: LoaderSettings | None
    """how samples are read"""
    device: torch.device | str
    """where the batches lie: cpu where not given; on CUDA the loader works there too"""
    dtype: torch.dtype
    """of images; float32 where not given"""
    seed: int
    """with `stream` it decides all that is random; 0 where not given"""
    stream: str
    """name of the stream, which has random numbers of its own; labeled or unlabeled by kind"""
    rank: int
    """number of this process; 0 where not given"""
    world_size: int
    """number of processes; 1 where not given"""
    weak_photometric: bool
    """distort the colours of weak views (`distortion`); not done where not given"""
    pool: PoolSettings | None
    """where unlabeled images come from besides the subset, or in its place; nowhere if not given"""


def completed(options: StreamOptions, stream: str) -> dict[str, Any]:
    """Return options with those that are not given; stream: the name of a stream of the kind."""
    defaults: StreamOptions = {
        "normalization": "imagenet",
        "device": "cpu",
        "dtype": torch.float32,
        "seed": 0,
        "stream": stream,
        "rank": 0,
        "world_size": 1,
        "weak_photometric": False,
        "pool": None,
    }
    return {**defaults, **options, "loader": options.get("loader") or LoaderSettings()}
