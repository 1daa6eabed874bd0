"""Convert a source into shards: restartable, with the same bytes for the same input."""

import fcntl
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from ..archive import TarWriter, index_text, replacing, verify_index, write_text
from ..bands.bands import sum_levels
from ..manifest import FILE, Manifest, ShardRecord, load_manifest
from ..outside.files import LeftOut
from ..rasters.kinds import bands_of
from ..rasters.tiling import tiled
from ..sample import parts_of_image
from ..sense import findings
from ..source import Entry, Source
from .made_of import FILE as NOTES
from .made_of import Note, fault_of_shard, load_notes, save_notes, stamp_of
from .packing import Packed, PackSettings, pack_sample
from .parallel import mapped
from .parts import Part, save_plan
from .planning import PlannedShard, plan_shards, same_images, same_settings

_OURS = re.compile(
    r"((?P<stem>\w+-\d{6,9})(\.tar|(\.images)?\.idx)|manifest\.json|sources\.json)(?P<tmp>\.tmp)?"
)
"""Files that a conversion writes."""


@dataclass(frozen=True)
class Report:
    """What a conversion did: shards written now, shards that were there, samples of each subset.

    `said` has one line for each reason why something was not taken as it is, and for what makes no
    sense in training.
    """

    written: int
    kept: int
    samples: dict[str, int]
    said: tuple[str, ...] = field(default=(), compare=False)


def convert(
    source: Source, root: Path, settings: PackSettings, *, replace_other: bool = False
) -> Report:
    """Convert a source into the folder `root`, or finish a conversion that was stopped.

    Of a conversion in parts, write the one that `settings.part` says into its folder below `root`.
    A shard that is whole, and whose source files did not change, is not written again. Raises
    ValueError where `root` holds something else (unless `replace_other`) and for bad input, OSError
    on a full disk; finished shards are kept in either case.
    """
    part = Part.parse(settings.part) if settings.part else None
    source = prepared(source, settings)
    root = part.folder(root) if part else root
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        found = _load_found(root, replace_other)
        if found is not None and not same_settings(found, source, settings):
            _refuse(root, found, replace_other)
            found = None
        every, wanted = plan_shards(source, settings, found)
        planned = part.of(every) if part else every
        if found is not None and found.complete and not same_images(found, planned):
            _refuse(root, found, replace_other)
        stamps = {shard.tar: stamp_of(source, shard.entries) for shard in planned}
        finished, notes = _finished(root, found, planned, stamps)
        todo = [shard for shard in planned if shard.tar not in finished]
        if todo or found is None or not found.complete:
            _save(root, wanted, every, finished)
        written = _write_shards(source, root, todo, settings)
        for shard, (record, remarks) in zip(todo, written, strict=True):
            finished[shard.tar] = record
            notes[shard.tar] = Note(stamps[shard.tar], remarks)
            save_notes(root, notes)
            _save(root, wanted, every, finished)
        _remove_strays(root, planned)
        if part:
            save_plan(root, [shard.tar for shard in every])
    samples = {name: len(entries) for name, entries in source.subsets.items()}
    said = _said(source, notes, None if part else load_manifest(root))
    return Report(len(todo), len(planned) - len(todo), samples, said)


def prepared(source: Source, settings: PackSettings) -> Source:
    """Return a source as it is packed: with the channels that its images keep, cut into tiles where
    that is asked for. Raises ValueError for images that cannot be read so."""
    source.bands = bands_of(source, settings.channels, settings.pages)
    if not settings.tile:
        return source
    return tiled(source, settings.tile, settings.tile_overlap, settings.pages, settings.exif)


def _load_found(root: Path, replace_other: bool) -> Manifest | None:
    """Return the manifest of an earlier conversion; one that cannot be read counts for nothing
    where it may be replaced."""
    if not (root / FILE).exists():
        return None
    try:
        return load_manifest(root)
    except ValueError:
        if not replace_other:
            raise
        return None


def _said(source: Source, notes: dict[str, Note], manifest: Manifest | None) -> tuple[str, ...]:
    remarks = LeftOut()
    for tar in sorted(notes):
        remarks.join(notes[tar].remarks)
    senseless = [] if manifest is None else findings(manifest)
    return (
        *source.left_out.lines("not taken"),
        *remarks.lines("changed"),
        *(f"warning: {finding}" for finding in senseless),
    )


def _refuse(root: Path, found: Manifest, replace_other: bool) -> None:
    if not replace_other:
        raise ValueError(
            f"{root} holds another conversion ({found.source['kind']}, with other images or "
            "settings): choose another folder, or say --replace"
        )


def _finished(
    root: Path, found: Manifest | None, planned: list[PlannedShard], stamps: dict[str, str]
) -> tuple[dict[str, ShardRecord], dict[str, Note]]:
    """Return the records of the shards in `root` that can stay, and the notes on them."""
    if found is None:
        return {}, {}
    notes = load_notes(root)
    records = {shard.tar: shard for subset in found.subsets.values() for shard in subset.shards}
    finished = {
        shard.tar: records[shard.tar]
        for shard in planned
        if shard.tar in records
        and shard.matches(records[shard.tar])
        and shard.tar in notes
        and notes[shard.tar].stamp == stamps[shard.tar]
        and not fault_of_shard(root, records[shard.tar])
    }
    return finished, {tar: notes[tar] for tar in finished}


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
) -> Iterator[tuple[ShardRecord, LeftOut]]:
    """Pack and write shards in order; yield each one's record, and what was said of its samples,
    when it lies on the disk."""
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
) -> tuple[ShardRecord, LeftOut]:
    rows, sizes, counts, class_counts, remarks = [], [], [], [], LeftOut()
    levels: list[list[tuple[int, ...]]] = []
    path = root / shard.tar
    with replacing(path) as file:
        tar = TarWriter(file)
        for position, sample in enumerate(samples):
            key = f"{shard.first_key + position:08d}"
            rows.append((key, {ext: tar.add(f"{key}.{ext}", data) for ext, data in sample.members}))
            sizes.append(sample.size)
            counts.append(sample.counts)
            class_counts.append(sample.row)
            levels.append(sample.levels)
            for remark in sample.remarks:
                remarks.add(remark, shard.entries[position].name)
            tick(1)
        total = tar.finish()
    record = ShardRecord(
        tar=shard.tar,
        first_key=shard.first_key,
        names=tuple(entry.name for entry in shard.entries),
        sizes=tuple(sizes) if len(set(sizes)) > 1 else (sizes[0],),
        counts=() if counts[0] is None else tuple(int(n) for n in np.sum(counts, axis=0)),
        labels=tuple(entry.label for entry in shard.entries if entry.label is not None),
        class_counts=tuple(class_counts) if all(class_counts) else (),
        levels=sum_levels(levels) if all(levels) else (),
        bytes=tar.bytes,
        sha256=total,
    )
    images = [(key, parts_of_image(parts)) for key, parts in rows]
    write_text(root / record.index, index_text(rows))
    write_text(root / record.image_index, index_text(images))
    verify_index(path, root / record.index)
    return record, remarks


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
    """Remove shards of an earlier conversion that was replaced, and what a kill left behind."""
    kept = {FILE, NOTES, *(shard.tar.removesuffix(".tar") for shard in planned)}
    for file in root.iterdir():
        ours = _OURS.fullmatch(file.name)
        stray = ours and (ours["tmp"] or (ours["stem"] or file.name) not in kept)
        if stray and not file.is_dir():
            file.unlink(missing_ok=True)
