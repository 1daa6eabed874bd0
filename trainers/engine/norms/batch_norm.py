"""Batch norm over a single value: found before a run begins, not in its first step."""

from __future__ import annotations

import copy

import torch
from torch import nn

from ..runtime import unwrap
from ..stages import Method

_FAULTS = ("more than 1 value per channel", "no batch statistics")


def check_batch_norms(method: Method, crop_size: tuple[int, int], world_size: int) -> None:
    """Raise ValueError where one image alone would leave a batch norm one value a channel, whose
    variance is nothing.

    Only a batch of one can; the networks are tried on a tensor without memory. Ranks that
    synchronise their statistics have each other's images.
    """
    sizes = [spec.batch_size for spec in method.streams.values()]
    images = sum(sizes) if method.joins_batches else min(sizes)
    if images > 1:
        return
    for names in method.optimized.values():
        for name in names:
            network = unwrap(method.find_network(name))
            synced = any(isinstance(m, nn.SyncBatchNorm) for m in network.modules())
            if not (synced and world_size > 1):
                _try(network, name, crop_size)


def _try(network: nn.Module, name: str, crop_size: tuple[int, int]) -> None:
    height, width = crop_size
    try:
        shadow = copy.deepcopy(network).to("meta").train()
        with torch.no_grad():
            shadow(torch.empty(1, 3, height, width, device="meta"))
    except ValueError as error:
        if any(fault in str(error) for fault in _FAULTS):
            raise ValueError(
                f"{name} has a batch norm that would see one value a channel with batch_size 1 and "
                f"crops of {height} x {width}, which has no variance: use --batch-size 2 or more, "
                "or larger --geometry.crop-size"
            ) from None
    except Exception:  # what cannot be tried without memory is left to the first step
        return
