"""What a run was made of, by sum: shards, split and labels; held against what is there now."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....plain import typed
from ....shards import Dataset
from ....shards.archive import sha256_of
from ....shards.dataset import SPLIT_SIDES, SPLITS
from ....shards.features.folder import load_feature_manifest
from ....shards.manifest import FILE as MANIFEST
from ....shards.pseudo import load_label_manifest


def data_sums(dataset: Dataset, split: str | None, labels: Path | None = None) -> dict[str, str]:
    """Return the sums of the shards of each subset, of the index files of each side of the split,
    and of the shards of a folder of labels: SHA-256 in hex by what it is of.

    The same data set at another place has the same sums.
    """
    sums = {}
    for name, record in dataset.manifest.subsets.items():
        sums[f"subset {name}"] = _joined((shard.tar, shard.sha256) for shard in record.shards)
    if split is not None:
        for side in SPLIT_SIDES:
            files = sorted((dataset.root / SPLITS / split / side).glob("*.idx"))
            if files:
                rows = ((file.name, sha256_of(file)) for file in files)
                sums[f"side {side} of split {split}"] = _joined(rows)
    if labels is not None:
        sums["labels"] = labels_sum(labels)
    return sums


def labels_sum(folder: Path) -> str:
    """Return the sum of a folder of pseudo-labels: of its shards."""
    shards = typed(load_label_manifest(folder)["shards"], list[dict[str, Any]])
    return _joined((str(shard.get("tar")), str(shard.get("sha256"))) for shard in shards)


def features_sum(folder: Path) -> str:
    """Return the sum of a folder of features: of its manifest, which holds those of its shards.

    Raises FileNotFoundError and ValueError where it is none.
    """
    load_feature_manifest(folder)
    return sha256_of(folder / MANIFEST)


def other_data(held: object, now: Mapping[str, str]) -> str | None:
    """Name what is not as it was, or None: of the sums that were recorded and exist now, and of the
    recorded sides of a split and labels, which must exist."""
    if not isinstance(held, dict):
        return None  # of a run before sums were recorded
    for name, total in held.items():
        if name in now and now[name] != total:
            return str(name)
        if name not in now and str(name) != "labels" and not str(name).startswith("subset "):
            return str(name)
    kept = [name for name in held if name != "labels"]
    if kept and not any(name in now for name in kept):
        return str(kept[0])
    return None


def sums_of(origin: Mapping[str, Any]) -> dict[str, str]:
    """Return the sums that a run or an export recorded, none for an old one."""
    sums = origin.get("sums")
    return dict(sums) if isinstance(sums, dict) else {}


def _joined(rows: Any) -> str:
    text = "".join(f"{name} {total}\n" for name, total in rows)
    return hashlib.sha256(text.encode()).hexdigest()
