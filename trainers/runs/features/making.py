"""Make features: the streams of a recipe run for some epochs, and the encoder sees each batch once.

A shard holds whole batches of a stream, as they were drawn; each rank makes every so many-th shard.
So the bytes depend on encoder, images and settings alone, not on the number of ranks or on
interruptions; a finished shard is not made again. What they take is known after the first batch,
and held against the free space of the disk before anything is written.
"""

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from ....models import SegmentationNetwork
from ....pipelines.features.records import records_of
from ....pipelines.streams.stream import Stream
from ....plain import counted
from ....shards import Dataset
from ....shards.features.encoding import Deviation
from ....shards.features.folder import (
    REMEDY,
    load_feature_manifest,
    shard_name,
    write_feature_manifest,
    write_feature_shard,
)
from ....shards.features.layout import Layout, sealed
from ....shards.manifest import FILE as MANIFEST
from ...engine.channels import with_channels
from ...engine.processes.locking import alone
from ...engine.processes.stopping import Stop, Stopped, never
from ...engine.runtime import Runtime
from ...engine.settings import RunSettings
from ...engine.settling import settle
from ...engine.stages import Method
from ...engine.streams import open_streams
from ...methods.registry import build_method
from ..checks import check_network
from .finished import finished, is_whole, joined, tidy, unmeasured, write_record
from .planned import Planned
from .request import claim_features, describe_features, encode, refuse_unfit
from .settings import FeatureSettings
from .told import size_words

log = logging.getLogger("warpseg")

SHARD_ROW = 240
"""Bytes of a shard in the manifest, about."""


def make_features(
    settings: RunSettings,
    options: FeatureSettings,
    runtime: Runtime,
    *,
    data: Path,
    out: Path,
    split: str | None = None,
    recipe: str = "",
    stop: Stop = never,
) -> dict[str, Any]:
    """Make the features of a recipe's views into the folder `out`, on all ranks; return the
    manifest, or with `size_only` what it would hold, without shards.

    Goes on where an earlier call with the same settings was interrupted. Raises ValueError where
    features cannot stand for the images of the recipe, and where `out` holds anything else; OSError
    where they do not fit on the disk; Stopped soon after `stop` tells so.
    """
    with ExitStack() as closing:
        work = Making(settings, options, runtime, data, out, split, recipe, stop, closing)
        if options.size_only:
            return work.manifest()
        closing.enter_context(alone(out, held=runtime.rank == 0))
        return work.run()


class Making:
    """The work of one rank on one folder of features."""

    def __init__(
        self,
        settings: RunSettings,
        options: FeatureSettings,
        runtime: Runtime,
        data: Path,
        out: Path,
        split: str | None,
        recipe: str,
        stop: Stop,
        closing: ExitStack,
    ) -> None:
        self.out, self.options, self.runtime, self.stop = out, options, runtime, stop
        dataset = Dataset.open(data)
        refuse_unfit(settings, dataset)
        # Each rank draws all batches that are its own as if it were alone.
        self.alone = replace(runtime, rank=0, world_size=1, wrapped=[])
        self.alone.seed(settings.seed)
        settings = with_channels(settings, dataset)
        self.method: Method = build_method(settings, self.alone, dataset.num_classes)
        self.network = cast(SegmentationNetwork, self.method.find_network(self.method.evaluated))
        settings = settle(settings, self.network, own=not dataset.plain)
        check_network(self.network, settings, dataset)
        self.request = describe_features(
            settings,
            self.method,
            runtime,
            dataset,
            split,
            views=options.views,
            encoding=options.encoding,
            recipe=recipe,
        )
        streams = open_streams(self.method.streams, dataset, split, settings, self.alone)
        for stream in streams.values():
            closing.callback(stream.close)
        self.streams = {name: self._planned(name, stream) for name, stream in streams.items()}

    def _planned(self, name: str, stream: Stream) -> Planned:
        batch = next(stream)
        first = next(records_of(batch, self._encode, self.options.encoding, []))
        return Planned(name, stream, Layout.of(sealed(first)), self.options.views)

    @property
    def _encode(self) -> Any:
        return partial(encode, self.network, runtime=self.runtime)

    def run(self) -> dict[str, Any]:
        """Make what is missing and return the manifest."""
        if self.runtime.rank == 0:
            self._check_room()
            claim_features(self.out, self.request)
        self.runtime.barrier()
        held = load_feature_manifest(self.out)
        if held["complete"]:
            self._repair(held)
        else:
            started = time.perf_counter()
            for planned in self.streams.values():
                self._write(planned)
            self.runtime.barrier()
            if self.runtime.rank == 0:
                manifest = self.manifest()
                write_feature_manifest(self.out, self.request, manifest["streams"], complete=True)
                seconds = time.perf_counter() - started
                log.info(f"features made in {seconds:.1f} s: {self.out}")
            self.runtime.barrier()
        if self.runtime.rank == 0:
            tidy(self.out, self.streams.values())
        return load_feature_manifest(self.out)

    def _repair(self, held: dict[str, Any]) -> None:
        """Make again the shards of finished features that are missing or were changed since."""
        streams = dict(held["streams"])
        before = json.dumps(streams)
        if self.runtime.rank == 0:
            # No records of old beside those of what is made now.
            tidy(self.out, self.streams.values())
        self.runtime.barrier()
        for name, planned in self.streams.items():
            rows = streams[name]["shards"] if name in streams else []
            if [row["tar"] for row in rows] != [shard_name(name, n) for n in range(planned.shards)]:
                raise ValueError(
                    f"{self.out / MANIFEST} is damaged (not all shards of {name} are in it): "
                    f"{REMEDY}"
                )
            for number in range(self.runtime.rank, planned.shards, self.runtime.world_size):
                if not is_whole(self.out, rows[number]):
                    log.warning(f"{self.out / rows[number]['tar']} is missing or was changed")
                    self._make(planned, number)
        self.runtime.barrier()
        if self.runtime.rank:
            return
        made = 0
        for name, planned in self.streams.items():
            rows = [finished(self.out, planned, number) for number in range(planned.shards)]
            made += sum(row is not None for row in rows)
            pairs = zip(rows, streams[name]["shards"], strict=True)
            rows = [old if row is None else unmeasured(row) for row, old in pairs]
            streams[name] = {**streams[name], "shards": rows}
        if not made:
            log.info(f"{self.out} is complete, and as it was written")
            return
        if json.dumps(streams) != before:  # by a device that rounds otherwise
            write_feature_manifest(self.out, held["request"], streams, complete=True)
        log.info(f"{counted(made, 'shard')} made again: {self.out}")

    @property
    def predicted(self) -> int:
        """Bytes that the folder will take."""
        layouts = [planned.layout.plain() for planned in self.streams.values()]
        told = len(json.dumps([self.request, layouts], indent=1))
        shards = sum(planned.shards for planned in self.streams.values())
        return told + SHARD_ROW * shards + sum(p.bytes for p in self.streams.values())

    def _check_room(self) -> None:
        """Say what the features take; raise OSError where the disk has no room for it."""
        records = sum(planned.records for planned in self.streams.values())
        log.info(
            f"{counted(records, 'record')} of {counted(self.options.views, 'view')} in "
            f"{self.options.encoding}: {size_words(self.predicted)} in {self.out}"
        )
        there = sum(f.stat().st_size for f in self.out.glob("*") if f.is_file())
        folder = next(
            folder for folder in (self.out, *self.out.resolve().parents) if folder.exists()
        )
        free = shutil.disk_usage(folder).free
        if self.predicted - there > free:
            raise OSError(
                f"the features take {size_words(self.predicted)}, and {size_words(free)} are free "
                f"on the disk of {self.out}: ask for fewer --views, for --encoding int8, or choose "
                "another --out"
            )

    def _write(self, planned: Planned) -> None:
        """Write this rank's shards of a stream that are missing."""
        for number in range(self.runtime.rank, planned.shards, self.runtime.world_size):
            if finished(self.out, planned, number) is None:
                self._make(planned, number)

    def _make(self, planned: Planned, number: int) -> None:
        """Write a shard, and beside it what the manifest will say of it."""
        errors: list[Deviation] = []
        records = self._records(planned, number, errors)
        name, first = shard_name(planned.name, number), number * planned.each
        with _named(planned.name):
            shard = write_feature_shard(self.out, name, planned.layout, first, records)
        write_record(self.out, planned, number, shard, errors)

    def _records(
        self, planned: Planned, number: int, errors: list[Deviation]
    ) -> Iterator[Mapping[str, np.ndarray]]:
        """Yield the records of a shard, whole batches but for the end of the last epoch."""
        place, end = number * planned.each, planned.end(number)
        planned.go_to(place)
        while place < end:
            if self.stop():
                raise Stopped(f"features stopped; what is finished lies in {self.out}")
            batch = next(planned.stream)
            rows = min(len(batch.keys), end - place)
            found = records_of(batch, self._encode, self.options.encoding, errors)
            yield from islice(found, rows)
            place += rows

    def manifest(self) -> dict[str, Any]:
        """Return what the manifest says, of shards that are finished."""
        streams = {}
        for name, planned in self.streams.items():
            rows = [finished(self.out, planned, number) for number in range(planned.shards)]
            found = [row for row in rows if row is not None]
            if len(found) < len(rows) and not self.options.size_only:
                raise RuntimeError(
                    f"{self.out} lacks shards that other ranks made: share one folder"
                )
            streams[name] = {
                "samples": planned.stream.epoch_size,
                "views": planned.views,
                "batch_size": planned.stream.batch_size,
                "size": list(planned.stream.geometry.crop_size),
                "layout": planned.layout.plain(),
                "errors": joined([row["errors"] for row in found]),
                "bytes": planned.bytes,
                "shards": [unmeasured(row) for row in found],
            }
        return {"request": self.request, "streams": streams, "bytes": self.predicted}


@contextmanager
def _named(stream: str) -> Iterator[None]:
    """Name the stream in what goes wrong with its features."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{stream}: {error}") from None
