"""Convert a source into shards: restartable, with the same bytes for the same input."""

import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..archive import TarWriter, index_text, replacing, verify_index, write_text
from ..dataset import parts_of_image
from ..manifest import FILE, Manifest, ShardRecord, SubsetRecord, load_manifest
from ..source import Entry, Source, shuffling_hash
from .packing import Packed, PackSettings, pack_sample
from .parallel import mapped
from .parts import Part, save_plan

PROBED = 16
"""Samples of a subset that are packed beforehand to learn how many fill a shard."""
SHUFFLED = ("train", "unlabeled")


@dataclass(frozen=True)
class PlannedShard:
    """A shard that is to be: which entries of which subset go into it."""

    subset: str
    tar: str
    first_key: int
    entries: list[Entry]

    def matches(self, record: ShardRecord) -> bool:
        """Whether a finished shard holds just these entries under these keys."""
        names = tuple(entry.name for entry in self.entries)
        return (record.tar, record.first_key, record.names) == (self.tar, self.first_key, names)


@dataclass(frozen=True)
class Report:
    """What a conversion did: shards written now, shards that were there, samples of each subset."""

    written: int
    kept: int
    samples: dict[str, int]


def convert(
    source: Source, root: Path, settings: PackSettings, *, replace_other: bool = False
) -> Report:
    """Convert a source into the folder `root`, or finish a conversion that was stopped.

    Of a conversion in parts, write the one that `settings.part` says into its folder below `root`.
    A shard that is finished, and not older than its source files, is not written again. Raises
    ValueError where `root` holds something else (unless `replace_other`) and for bad input, OSError
    on a full disk; finished shards are kept in either case.
    """
    part = Part.parse(settings.part) if settings.part else None
    root = part.folder(root) if part else root
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        found = load_manifest(root) if (root / FILE).is_file() else None
        if found is not None and not _same_settings(found, source, settings):
            _refuse(root, found, replace_other)
            found = None
        every, wanted = _plan(source, settings, found)
        planned = part.of(every) if part else every
        if found is not None and found.complete and not _same_images(found, planned):
            _refuse(root, found, replace_other)
        finished = {} if found is None else _finished(root, found, planned, source)
        todo = [shard for shard in planned if shard.tar not in finished]
        if todo or found is None or not found.complete:
            _save(root, wanted, every, finished)
        for shard, record in zip(todo, _write_shards(source, root, todo, settings), strict=True):
            finished[shard.tar] = record
            _save(root, wanted, every, finished)
        _remove_strays(root, planned)
        if part:
            save_plan(root, [shard.tar for shard in every])
    samples = {name: len(entries) for name, entries in source.subsets.items()}
    return Report(len(todo), len(planned) - len(todo), samples)


def _plan(
    source: Source, settings: PackSettings, found: Manifest | None
) -> tuple[list[PlannedShard], Manifest]:
    """Divide a source into shards of equal counts; keys run through all subsets.

    An earlier conversion's counts are kept, so that its finished shards still fit.
    """
    shards: list[PlannedShard] = []
    records: dict[str, SubsetRecord] = {}
    first_key = 0
    for subset, entries in source.subsets.items():
        if settings.shuffle and subset in SHUFFLED:
            entries = sorted(entries, key=lambda entry: shuffling_hash(entry.name, "pack"))
        earlier = found.subsets.get(subset) if found else None
        count = earlier.shard_samples if earlier else _samples_per_shard(source, entries, settings)
        for number, start in enumerate(range(0, len(entries), count)):
            part = entries[start : start + count]
            shards.append(PlannedShard(subset, f"{subset}-{number:06d}.tar", first_key, part))
            first_key += len(part)
        annotated = entries[0].mask is not None or entries[0].label is not None
        records[subset] = SubsetRecord(annotated=annotated, shard_samples=count, shards=())
    manifest = Manifest(
        complete=False,
        task=source.task,
        classes=source.classes,
        palette=source.palette,
        source=_source_record(source),
        packing=settings.record(),
        groups=source.groups,
        subsets=records,
    )
    return shards, manifest


def _samples_per_shard(source: Source, entries: list[Entry], settings: PackSettings) -> int:
    probes = entries[:: -(-len(entries) // PROBED)]
    size = sum(
        1024 + len(data)
        for entry in probes
        for _, data in pack_sample(source, entry, settings).members
    )
    return max(1, settings.shard_size * 2**20 * len(probes) // size)


def _source_record(source: Source) -> dict[str, Any]:
    record = {"kind": source.kind, "values": source.values.record(), **source.settings}
    return json.loads(json.dumps(record))


def _same_settings(found: Manifest, source: Source, settings: PackSettings) -> bool:
    there = (found.task, found.classes, found.palette, found.source, found.packing)
    here = (source.task, source.classes, source.palette, _source_record(source), settings.record())
    return there == here


def _same_images(found: Manifest, planned: list[PlannedShard]) -> bool:
    records = {shard.tar: shard for subset in found.subsets.values() for shard in subset.shards}
    return len(records) == len(planned) and all(
        shard.tar in records and shard.matches(records[shard.tar]) for shard in planned
    )


def _refuse(root: Path, found: Manifest, replace_other: bool) -> None:
    if not replace_other:
        raise ValueError(
            f"{root} holds another conversion ({found.source['kind']}, with other images or "
            "settings): choose another folder, or say --replace"
        )


def _finished(
    root: Path, found: Manifest, planned: list[PlannedShard], source: Source
) -> dict[str, ShardRecord]:
    """Return the records of the shards in `root` that can stay, by file name."""
    records = {shard.tar: shard for subset in found.subsets.values() for shard in subset.shards}
    return {
        shard.tar: records[shard.tar]
        for shard in planned
        if shard.tar in records
        and shard.matches(records[shard.tar])
        and _is_current(root, records[shard.tar], shard, source)
    }


def _is_current(root: Path, record: ShardRecord, shard: PlannedShard, source: Source) -> bool:
    """Whether a finished shard is whole and none of its source files is newer."""
    tar = root / record.tar
    if not all((root / name).is_file() for name in (record.tar, record.index, record.image_index)):
        return False
    state = tar.stat()
    files = {file for entry in shard.entries for file in source.files(entry)}
    return state.st_size == record.bytes and all(
        file.stat().st_mtime <= state.st_mtime for file in files
    )


def _save(
    root: Path, wanted: Manifest, planned: list[PlannedShard], finished: dict[str, ShardRecord]
) -> None:
    shards: dict[str, list[ShardRecord]] = {}
    for shard in planned:
        if shard.tar in finished:
            shards.setdefault(shard.subset, []).append(finished[shard.tar])
    wanted.with_shards(shards, complete=len(finished) == len(planned)).save(root)


def _write_shards(
    source: Source, root: Path, todo: list[PlannedShard], settings: PackSettings
) -> Iterator[ShardRecord]:
    """Pack and write shards in order; yield each one's record when it lies on the disk."""
    from tqdm import tqdm

    entries = [entry for shard in todo for entry in shard.entries]
    if not entries:
        return
    with (
        mapped(_pack, (source, settings), entries, workers=settings.workers) as samples,
        tqdm(total=len(entries), unit="image", disable=None, file=sys.stderr) as progress,
    ):
        for shard in todo:
            yield _write_shard(root, shard, islice(samples, len(shard.entries)), progress.update)


def _pack(shared: tuple[Source, PackSettings], entry: Entry) -> Packed:
    source, settings = shared
    return pack_sample(source, entry, settings)


def _write_shard(
    root: Path, shard: PlannedShard, samples: Iterable[Packed], tick: Callable[[int], object]
) -> ShardRecord:
    rows, sizes, counts = [], [], []
    path = root / shard.tar
    with replacing(path) as file:
        tar = TarWriter(file)
        for position, sample in enumerate(samples):
            key = f"{shard.first_key + position:08d}"
            rows.append((key, {ext: tar.add(f"{key}.{ext}", data) for ext, data in sample.members}))
            sizes.append(sample.size)
            counts.append(sample.counts)
            tick(1)
        total = tar.finish()
    record = ShardRecord(
        tar=shard.tar,
        first_key=shard.first_key,
        names=tuple(entry.name for entry in shard.entries),
        sizes=tuple(sizes) if len(set(sizes)) > 1 else (sizes[0],),
        counts=() if counts[0] is None else tuple(int(n) for n in np.sum(counts, axis=0)),
        labels=tuple(entry.label for entry in shard.entries if entry.label is not None),
        bytes=tar.bytes,
        sha256=total,
    )
    images = [(key, parts_of_image(parts)) for key, parts in rows]
    write_text(root / record.index, index_text(rows))
    write_text(root / record.image_index, index_text(images))
    verify_index(path, root / record.index)
    return record


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold a lock on the folder, so that two conversions never write into it at once."""
    folder = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another warpseg convert is writing {root}: wait for it") from None
        except OSError:
            pass  # a file system without locks: two conversions at once are the user's care there
        yield
    finally:
        os.close(folder)


def _remove_strays(root: Path, planned: list[PlannedShard]) -> None:
    """Remove shards of an earlier conversion that was replaced."""
    names = {shard.tar for shard in planned}
    for tar in root.glob("*-[0-9][0-9][0-9][0-9][0-9][0-9].tar"):
        if tar.name not in names:
            for file in (tar, tar.with_suffix(".idx"), tar.with_suffix(".images.idx")):
                file.unlink(missing_ok=True)
