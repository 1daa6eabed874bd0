"""Pseudo-labels: a trained network labels the images of a split, and the labels become shards.

Each image passes through the network once. Without a threshold, or with a fixed one, its label is
written at once. A ratio can be met only when all images are known: then labels and exact float32
confidences are set down first (5 bytes a pixel, under LABELS/scratch, removed in the end), ranked
(ranking.py), and written.

Shards hold the images in the order of the subset, as many as make some sixteen million pixels. Each
rank makes every so many-th of them. Their bytes depend on network, images and settings alone, not
on the number of ranks or on interruptions; a finished shard is not made again.
"""

import json
import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from ... import IGNORE
from ...pipelines.settings import LoaderSettings
from ...plain import read_json
from ...shards import Sample, Subset
from ...shards.archive import write_text
from ...shards.maps import MapEncoding
from ...shards.pseudo import (
    EncodedLabel,
    LabelShard,
    PseudoLabel,
    encode_label,
    load_label_manifest,
    quantize,
    write_label_manifest,
    write_label_shard,
)
from ..engine.processes.locking import alone
from ..engine.processes.stopping import Stop, Stopped, never
from ..engine.runtime import Runtime
from ..scoring.inference import evaluating
from ..scoring.trained import TrainedNetwork
from .predicted import Predicted, predict_subset, read_scratch, write_scratch
from .ranking import Chunk, rank_classes
from .request import claim_labels, describe_labels
from .settings import LabelingSettings
from .statistics import summarize

log = logging.getLogger("warpseg")

SHARD_PIXELS = 2**24
SCRATCH = "scratch"
THRESHOLDS = f"{SCRATCH}/thresholds.json"

Item = TypeVar("Item")
Result = TypeVar("Result")


def label_subset(
    trained: TrainedNetwork,
    subset: Subset,
    out: Path,
    settings: LabelingSettings,
    runtime: Runtime,
    *,
    loader: LoaderSettings | None = None,
    stop: Stop = never,
) -> dict[str, Any]:
    """Label the images of a subset into the folder `out`, on all ranks; return the manifest.

    Goes on where an earlier call with the same network, images and settings was interrupted. Raises
    ValueError where `out` holds anything else, for a data set or a protocol that does not fit, and
    where the network returns no finite numbers; Stopped soon after `stop` tells so.
    """
    if settings.evaluation.mode == "center_crop":
        raise ValueError(
            "evaluation mode center_crop labels only the middle of an image; make pseudo-labels "
            "with --evaluation.mode whole or sliding"
        )
    if trained.classes != subset.dataset.classes:
        raise ValueError(
            f"the network knows {len(trained.classes)} classes, {subset.dataset.root} has others "
            f"({len(subset.dataset.classes)}): choose the data set it was trained for"
        )
    if not len(subset):
        raise ValueError(f"{subset.name} holds no images to label: choose another subset or split")
    work = Labeling(trained, subset, out, settings, runtime, loader or LoaderSettings(), stop)
    return work.run()


class Labeling:
    """The work of one rank on one folder of labels."""

    def __init__(
        self,
        trained: TrainedNetwork,
        subset: Subset,
        out: Path,
        settings: LabelingSettings,
        runtime: Runtime,
        loader: LoaderSettings,
        stop: Stop,
    ) -> None:
        self.trained, self.subset, self.out = trained, subset, out
        self.settings, self.runtime, self.loader, self.stop = settings, runtime, loader, stop
        self.shards = plan_shards(subset.samples())
        self.own = range(runtime.rank, len(self.shards), runtime.world_size)
        self.request = describe_labels(trained, subset, settings, runtime)

    def run(self) -> dict[str, Any]:
        """Make what is missing and return the manifest."""
        with alone(self.out, held=self.runtime.rank == 0):
            return self._run()

    def _run(self) -> dict[str, Any]:
        if self.runtime.rank == 0:
            claim_labels(self.out, self.request)
        self.runtime.barrier()
        manifest = load_label_manifest(self.out)
        if not manifest["complete"]:
            started = time.perf_counter()
            self.runtime.place(self.trained.network)
            with evaluating(self.trained.network):
                thresholds = self._thresholds()
                self._write(thresholds)
            self.runtime.barrier()
            if self.runtime.rank == 0:
                self._complete(thresholds)
            seconds = time.perf_counter() - started
            log.info(f"{len(self.subset)} images labeled in {seconds:.1f} s: {self.out}")
            self.runtime.barrier()
        if self.runtime.rank == 0:
            self._tidy()
        return load_label_manifest(self.out)

    def _tidy(self) -> None:
        """Remove what finished labels need no more, also after a kill in the midst of it."""
        for number in range(len(self.shards)):
            self._record(number).unlink(missing_ok=True)
        for leftover in self.out.glob("labels-*.tmp"):
            leftover.unlink()
        shutil.rmtree(self.out / SCRATCH, ignore_errors=True)

    def _thresholds(self) -> np.ndarray:
        """Return the least confidence that is kept of each class: float32 (C,)."""
        settings, num_classes = self.settings, len(self.trained.classes)
        if not settings.ranked:
            value = settings.value if settings.threshold == "fixed" else 0.0
            return np.full(num_classes, value, np.float32)
        file = self.out / THRESHOLDS
        if not file.is_file():
            file.parent.mkdir(exist_ok=True)
            for number in self.own:
                if not self._scratch(number).is_file():
                    write_scratch(self._scratch(number), self._predict(number))
            values = rank_classes(
                self._sampled,
                num_classes,
                settings.ratio,
                apart=settings.threshold == "class",
                total=self._total,
            )
            if self.runtime.rank == 0:
                write_text(file, json.dumps([float(value) for value in values]))
            self.runtime.barrier()
        values = read_json(file, list[float], "remove it, and the thresholds are found again")
        return np.array(values, np.float32)

    def _write(self, thresholds: np.ndarray) -> None:
        """Write this rank's shards that are missing; labels are encoded in threads."""
        encode = partial(keep_and_encode, thresholds=thresholds, encoding=self.settings.encoding)
        with ThreadPoolExecutor(self.loader.num_threads, "warpseg-encode") as pool:
            for number in self.own:
                if self._finished(number) is not None:
                    continue
                exact = self._exact if self.settings.ranked else self._predict
                labels = ordered(pool, encode, exact(number), 2 * self.loader.num_threads)
                record = write_label_shard(self.out, number, labels)
                write_text(self._record(number), json.dumps(asdict(record)))
                self._scratch(number).unlink(missing_ok=True)

    def _complete(self, thresholds: np.ndarray) -> None:
        """Join the records of all shards in the manifest."""
        records = [self._finished(number) for number in range(len(self.shards))]
        shards = [record for record in records if record is not None]
        if len(shards) < len(records):
            raise RuntimeError(f"{self.out} lacks shards that other ranks made: share one folder")
        content = {
            "request": self.request,
            "images": sum(shard.images for shard in shards),
            "left_out": len(self.subset) - sum(shard.images for shard in shards),
            **summarize(self.trained.classes, thresholds, shards),
        }
        write_label_manifest(self.out, shards, content, complete=True)

    def _predict(self, number: int) -> Iterator[Predicted]:
        keys = [sample.key for sample in self.shards[number]]
        for made in predict_subset(
            self.trained,
            self.subset.only(keys),
            self.settings.evaluation,
            self.runtime,
            self.loader,
            batch_size=self.settings.batch_size,
        ):
            if self.stop():
                raise Stopped(f"labeling stopped; what is finished lies in {self.out}")
            yield made

    def _exact(self, number: int) -> Iterator[Predicted]:
        whole = self.trained.task == "classification"
        return read_scratch(self._scratch(number), self.shards[number], whole=whole)

    def _sampled(self) -> Iterator[Chunk]:
        """Yield what this rank's ranking sees."""
        every = self.settings.sample_every
        for number in self.own:
            for made in self._exact(number):
                yield made.label.ravel()[::every], made.confidence.ravel()[::every]

    def _total(self, counts: np.ndarray) -> np.ndarray:
        """Add up the counts of all ranks."""
        if self.runtime.world_size == 1:
            return counts
        on_device = torch.from_numpy(counts).to(self.runtime.device)
        dist.all_reduce(on_device)
        return on_device.cpu().numpy()

    def _finished(self, number: int) -> LabelShard | None:
        """Return the record of a shard that is whole, or None: a damaged one is made again."""
        if not self._record(number).is_file():
            return None
        try:
            record = LabelShard.from_plain(read_json(self._record(number), dict[str, Any], ""))
        except (ValueError, TypeError, KeyError):
            return None
        tar = self.out / f"labels-{number:06d}.tar"
        whole = record.tar == tar.name and tar.with_suffix(".idx").is_file() and tar.is_file()
        return record if whole and tar.stat().st_size == record.bytes else None

    def _record(self, number: int) -> Path:
        return self.out / f"labels-{number:06d}.json"

    def _scratch(self, number: int) -> Path:
        return self.out / SCRATCH / f"labels-{number:06d}.raw"


def plan_shards(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Cut samples, in order, into shards of some sixteen million pixels, as many images in each."""
    largest = max((sample.size[0] * sample.size[1] for sample in samples), default=1)
    count = max(1, SHARD_PIXELS // largest)
    return [list(samples[start : start + count]) for start in range(0, len(samples), count)]


def keep_and_encode(
    made: Predicted, thresholds: np.ndarray, encoding: MapEncoding = "png"
) -> EncodedLabel:
    """Drop what is less confident than its class's threshold, (C,) float32, and encode."""
    kept = np.where(made.confidence >= thresholds[made.label], made.label, np.uint8(IGNORE))
    label = PseudoLabel(made.key, kept, quantize(made.confidence))
    return encode_label(label, made.label, len(thresholds), encoding)


def ordered(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Yield function(item) in order, computed in threads at most `ahead` items before its use."""
    items = iter(items)
    waiting: deque[Future[Result]] = deque(
        pool.submit(function, item) for item in islice(items, ahead)
    )
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(function, item) for item in islice(items, 1))
        yield result
