"""A conversion in parts: N machines write every N-th shard, then the parts are joined.

Each machine plans the whole conversion and writes its share into DATA/part-I-of-N, which is no data
set by itself. Shards do not depend on each other, so the joined bytes are those of one machine.
"""

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..archive import write_text
from ..manifest import FILE, Manifest, ShardRecord, load_manifest
from ..outside.text import Wrong, checked, list_of, read_json, text
from .made_of import FILE as NOTES
from .made_of import fault_of_shard, load_notes, save_notes

PLAN = "plan.json"
"""What a finished part leaves beside its manifest: the shards of all parts, in order."""
_FOLDER = re.compile(r"part-(\d{1,6})-of-(\d{1,6})")
_LEFT = re.compile(r"[\w.-]+\.(idx|tar)\.tmp|[\w.-]+\.idx")
"""What a killed conversion or merge leaves in a part beside its manifest."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """Part `number`, counted from 1, of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, words: str) -> "Part":
        """Read I/N; ValueError where it is no part."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", words)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"--part must be I/N with I from 1 to N, such as 2/8; got {words!r}")
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


def merge_parts(root: Path) -> tuple[Manifest, bool]:
    """Move the shards of all parts in `root` into it and write their common manifest; tell whether
    there was anything to do.

    A merge that was stopped goes on. Raises FileNotFoundError for a part that is missing or not
    finished and ValueError for parts of different conversions.
    """
    there = load_manifest(root) if (root / FILE).is_file() else None
    folders = _find_parts(root, there)
    if there is not None and there.complete and _all_joined(there, folders):
        for folder in folders:
            _clear(folder)
        return there, bool(folders)
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
    if there is not None and there.with_shards({}, complete=True) != empty:
        raise ValueError(
            f"{root} holds another conversion than its parts: remove its {FILE}, or join them in "
            "another folder"
        )
    merged = first.with_shards(_joined(tars, manifests), complete=True)
    notes = load_notes(root)
    for folder, manifest in manifests.items():
        notes |= load_notes(folder)
        for record in _records(manifest).values():
            _move(folder, root, record)
    save_notes(root, {tar: note for tar, note in notes.items() if tar in tars})
    merged.save(root)
    for folder in folders:
        _clear(folder)
    return merged, True


def _records(manifest: Manifest) -> dict[str, ShardRecord]:
    return {shard.tar: shard for subset in manifest.subsets.values() for shard in subset.shards}


def _joined(tars: Sequence[str], manifests: dict[Path, Manifest]) -> dict[str, list[ShardRecord]]:
    """Return the shards of all parts by subset, in the order of the plan."""
    records = {
        shard.tar: (name, shard)
        for manifest in manifests.values()
        for name, subset in manifest.subsets.items()
        for shard in subset.shards
    }
    missing = [tar for tar in tars if tar not in records]
    if missing:
        raise ValueError(
            f"none of the parts holds {missing[0]}, which is planned: run warpseg convert --part "
            "again"
        )
    shards: dict[str, list[ShardRecord]] = {}
    for tar in tars:
        name, shard = records[tar]
        shards.setdefault(name, []).append(shard)
    return shards


def _all_joined(there: Manifest, folders: Sequence[Path]) -> bool:
    """Whether the parts that are left were joined before: a merge was stopped while it removed
    them. A part that was converted since has shards of its own."""
    shards = _records(there)
    for folder in folders:
        if any(folder.glob("*.tar")):
            return False
        if (folder / FILE).is_file():
            records = _records(load_manifest(folder))
            if any(shards.get(tar) != record for tar, record in records.items()):
                return False
    return True


def _clear(folder: Path) -> None:
    """Remove a part's folder and what we wrote into it; a folder with other files stays."""
    for file in folder.iterdir():
        if file.name.removesuffix(".tmp") in (FILE, PLAN, NOTES) or _LEFT.fullmatch(file.name):
            file.unlink()
    with suppress(OSError):
        folder.rmdir()


def _find_parts(root: Path, there: Manifest | None) -> list[Path]:
    """Return the folders of all parts, in order; of parts that were joined before (`there` is
    what they gave) those that are left."""
    found = {
        (int(name[2]), int(name[1])): folder
        for folder in root.glob("part-*-of-*")
        if (name := _FOLDER.fullmatch(folder.name))
    }
    if there is not None and there.complete and _all_joined(there, list(found.values())):
        return [found[name] for name in sorted(found)]
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
    remedy = "run the same warpseg convert --part again"
    return list(checked(read_json(path, remedy), list_of(_tar), path, remedy))


def _tar(value: Any) -> str:
    if not re.fullmatch(r"\w{1,64}-\d{6,9}\.tar", text(value)):
        raise Wrong("is no name of a shard")
    return value


def _move(folder: Path, root: Path, record: ShardRecord) -> None:
    """Rename a shard's files; those that an earlier merge has moved are there, and whole."""
    moved = False
    for name in (record.index, record.image_index, record.tar):
        if (folder / name).is_file():
            os.replace(folder / name, root / name)
        elif not (root / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing: convert this part again")
        else:
            moved = True
    fault = fault_of_shard(root, record) if moved else ""
    if fault:
        raise ValueError(f"{fault}, with --part {'/'.join(_numbers(folder))}")


def _numbers(folder: Path) -> tuple[str, ...]:
    found = _FOLDER.fullmatch(folder.name)
    return found.groups() if found else ()
