"""A conversion in parts: N machines write every N-th shard, then the parts are joined.

Each machine plans the whole conversion and writes its share into DATA/part-I-of-N, which is no data
set by itself. Shards do not depend on each other, so the joined bytes are those of one machine.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..archive import write_text
from ..manifest import FILE, Manifest, load_manifest

PLAN = "plan.json"
"""What a finished part leaves beside its manifest: the shards of all parts, in order."""
_FOLDER = re.compile(r"part-(\d+)-of-(\d+)")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """Part `number`, counted from 1, of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read I/N; ValueError where it is no part."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"--part must be I/N with I from 1 to N, such as 2/8; got {text!r}")
        return cls(int(found[1]), int(found[2]))

    def folder(self, root: Path) -> Path:
        """Return where this part of the data set in `root` is written."""
        return root / f"part-{self.number}-of-{self.count}"

    def of(self, shards: Sequence[Item]) -> list[Item]:
        """Return this part's share."""
        return list(shards[self.number - 1 :: self.count])


def save_plan(root: Path, tars: Sequence[str]) -> None:
    """Mark the part in `root` as finished, with the names of the shards of all parts in order."""
    write_text(root / PLAN, json.dumps(tars, indent=1) + "\n")


def merge_parts(root: Path) -> Manifest:
    """Move the shards of all parts in `root` into it and write their common manifest.

    A merge that was stopped goes on. Raises FileNotFoundError for a part that is missing or not
    finished and ValueError for parts of different conversions.
    """
    folders = _find_parts(root)
    plans = {folder: _plan_of(folder) for folder in folders}
    tars = plans[folders[0]]
    manifests = {folder: load_manifest(folder) for folder in folders}
    first = manifests[folders[0]]
    empty = first.with_shards({}, complete=True)
    for folder, manifest in manifests.items():
        if plans[folder] != tars or manifest.with_shards({}, complete=True) != empty:
            raise ValueError(
                f"{folder} is a part of another conversion than {folders[0]}: convert both from "
                "the same images with the same settings"
            )
    records = {
        shard.tar: (name, shard)
        for manifest in manifests.values()
        for name, subset in manifest.subsets.items()
        for shard in subset.shards
    }
    for folder, manifest in manifests.items():
        for subset in manifest.subsets.values():
            for shard in subset.shards:
                for file in (shard.tar, shard.index, shard.image_index):
                    _move(folder / file, root / file)
    shards: dict[str, list] = {}
    for tar in tars:
        name, shard = records[tar]
        shards.setdefault(name, []).append(shard)
    merged = first.with_shards(shards, complete=True)
    merged.save(root)
    for folder in folders:
        for file in (FILE, PLAN):
            (folder / file).unlink()
        folder.rmdir()
    return merged


def _find_parts(root: Path) -> list[Path]:
    """Return the folders of all parts, in order."""
    found = {
        (int(name[2]), int(name[1])): folder
        for folder in root.glob("part-*-of-*")
        if (name := _FOLDER.fullmatch(folder.name))
    }
    if not found:
        raise FileNotFoundError(
            f"{root} holds no parts (part-1-of-N, ...): make them with warpseg convert --part"
        )
    counts = {count for count, _ in found}
    if len(counts) > 1:
        raise ValueError(
            f"{root} holds parts of {min(counts)} and of {max(counts)}: remove those of one of them"
        )
    (count,) = counts
    missing = [
        Part(number, count) for number in range(1, count + 1) if (count, number) not in found
    ]
    if missing:
        raise FileNotFoundError(
            f"{missing[0].folder(root)} is missing: run warpseg convert with --part "
            f"{missing[0].number}/{count}, or copy it here"
        )
    return [found[count, number] for number in range(1, count + 1)]


def _plan_of(folder: Path) -> list[str]:
    path = folder / PLAN
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not finished: run the same warpseg convert --part again"
        )
    return json.loads(path.read_text())


def _move(source: Path, target: Path) -> None:
    """Rename a file; one that an earlier merge has moved is there already."""
    if source.is_file():
        os.replace(source, target)
    elif not target.is_file():
        raise FileNotFoundError(f"{source} is missing: convert this part again")
