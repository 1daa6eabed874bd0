"""Which shards a source becomes, and whether those of an earlier conversion are the same."""

import json
from dataclasses import dataclass
from typing import Any

from ..bands.bands import Bands
from ..manifest import Manifest, ShardRecord, SubsetRecord
from ..source import Entry, Source, shuffling_hash
from .packing import PackSettings, pack_sample

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


def plan_shards(
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
        channels=None
        if source.bands is None
        else Bands(count=source.bands[0], bits=source.bands[1]),
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


def same_settings(found: Manifest, source: Source, settings: PackSettings) -> bool:
    """Tell whether an earlier conversion was of such a source, with such settings."""
    kind = None if found.channels is None else found.channels.kind
    there = (found.task, found.classes, found.palette, found.source, found.packing, kind)
    here = (source.task, source.classes, source.palette, _source_record(source), settings.record())
    return there == (*here, source.bands)


def same_images(found: Manifest, planned: list[PlannedShard]) -> bool:
    """Tell whether an earlier conversion has these shards of these images, and no others."""
    records = {shard.tar: shard for subset in found.subsets.values() for shard in subset.shards}
    return len(records) == len(planned) and all(
        shard.tar in records and shard.matches(records[shard.tar]) for shard in planned
    )
