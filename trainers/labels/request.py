"""What decides a folder of pseudo-labels, and how a labeling claims one."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...plain import typed
from ...shards import Subset
from ...shards.manifest import FILE as MANIFEST
from ...shards.pseudo import load_label_manifest, write_label_manifest
from ..engine.processes.locking import LOCK
from ..engine.runtime import Runtime
from ..engine.settings import first_difference, to_plain
from ..scoring.trained import TrainedNetwork


def describe_labels(
    trained: TrainedNetwork, subset: Subset, settings: Any, runtime: Runtime
) -> dict[str, Any]:
    """Return all that decides the labels of a subset, as plain values: their provenance."""
    records = subset.dataset.records
    return {
        "network": dict(trained.origin),
        "network_sha256": state_sum(trained.network),
        "data": str(Path(subset.dataset.root).resolve()),
        "data_shards": {index.tar.name: records[index.tar.name].sha256 for index in subset.shards},
        "split": subset.split,
        "subset": subset.name,
        "images": len(subset),
        "keys_sha256": _sum_of(sample.key for sample in subset.samples()),
        "classes": list(trained.classes),
        "settings": to_plain(settings),
        "precision": runtime.precision,
        "device": runtime.device.type,
    }


def claim_labels(out: Path, request: dict[str, Any]) -> None:
    """Make a folder that of the labels described, or check that it is.

    Raises ValueError where it holds other labels, naming what differs, or other files.
    """
    if (out / MANIFEST).is_file():
        # The same network and data may have been moved: their sums tell.
        moved = {"data": None, "network": None}
        held = _request_of(out)
        held["settings"] = {
            "encoding": "png",
            **typed(held.get("settings"), dict[str, Any], "settings"),
        }
        different = first_difference(held | moved, request | moved)
        if different:
            raise ValueError(f"{out} holds other labels ({different}); choose another folder")
        return
    leftovers = (LOCK, f"{MANIFEST}.tmp")
    if out.exists() and any(file.name not in leftovers for file in out.iterdir()):
        raise ValueError(f"{out} holds other files; choose an empty or new folder")
    out.mkdir(parents=True, exist_ok=True)
    write_label_manifest(out, [], {"request": request}, complete=False)


def _request_of(out: Path) -> dict[str, Any]:
    try:
        return typed(load_label_manifest(out).get("request"), dict[str, Any], "request")
    except ValueError as error:
        raise ValueError(
            f"{out / MANIFEST} is damaged ({error}): label into a new folder"
        ) from None


def state_sum(network: nn.Module) -> str:
    """Return the SHA-256 of a network's state, names and values, in hex."""
    total = hashlib.sha256()
    for name, value in network.state_dict().items():
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _sum_of(keys: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()
