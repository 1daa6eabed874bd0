"""What every loader shares: the plan of a batch, threads that read ahead, errors that name names.

A loader delivers crops as the shards hold them, uint8; the device half (`streams`) makes network
inputs of them. The plan says everything about a batch without reading a byte, so that the loaders
differ in nothing but who decodes and resamples.
"""

import logging
import os
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import IGNORE
from ..shards import Sample
from .cache import HostCache
from .geometry import Window, draw_window
from .masks import MaskReader
from .sampling import GEOMETRY, Sampler
from .settings import GeometrySettings, LoaderSettings

DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)
"""What reading and decoding raise over bytes that are not what they should be."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MapSource:
    """One map that goes with the image.

    extension: its member of a sample. fill: value where the crop shows no image. samples: samples
    by key that hold it in place of the image's own (pseudo-labels lie in tars of their own).
    """

    extension: str
    fill: int = IGNORE
    samples: Mapping[str, Sample] | None = None

    def sample_of(self, sample: Sample) -> Sample:
        """Return the sample that holds the map of an image; ValueError where there is none."""
        if self.samples is None:
            return sample
        if sample.key not in self.samples:
            raise damaged(sample, ValueError(f"there is no {self.extension} for it"))
        return self.samples[sample.key]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A batch before it is read: its first position, samples, windows and (N, DRAWS) draws."""

    position: int
    samples: tuple[Sample, ...]
    windows: tuple[Window, ...]
    draws: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Crops:
    """A batch as loaded.

    image: (N, H, W, 3) uint8 on the loader's device. maps: (N, H, W) uint8 by name, on the CPU;
    "class" is (N, 1, 1). skipped: how many of its samples stand in for corrupt ones.
    """

    request: Request
    image: Tensor
    maps: dict[str, Tensor]
    skipped: int = 0
    resident_window: Tensor | None = None

    @property
    def window(self) -> Tensor:
        """(N, 4) int32 [top, left, bottom, right) on the CPU, or where a resident image lies."""
        if self.resident_window is not None:
            return self.resident_window
        return torch.tensor([w.shown for w in self.request.windows], dtype=torch.int32)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the samples."""
        return tuple(sample.key for sample in self.request.samples)


Change = Callable[[np.ndarray, int], np.ndarray]
"""Turns the image (H, W, 3) uint8 at a position, whole and of its own size, into another one."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a stream's batches are made of; `change` acts on whole images, before their geometry."""

    samples: Sequence[Sample]
    sampler: Sampler
    geometry: GeometrySettings
    batch_size: int
    fill: tuple[int, int, int]
    maps: Mapping[str, MapSource]
    classes: bool = False
    change: Change | None = None

    def request(self, position: int) -> Request:
        """Return the batch whose first sample stands at `position` of the stream."""
        indices = self.sampler.indices(position, self.batch_size)
        draws = self.sampler.draws(position, self.batch_size)
        samples = tuple(self.samples[i] for i in indices)
        windows = tuple(map(self.window, samples, draws))
        return Request(position=position, samples=samples, windows=windows, draws=draws)

    def window(self, sample: Sample, draws: np.ndarray) -> Window:
        """Return the window of a sample under the (DRAWS,) draws of its position."""
        return draw_window(self.geometry, sample.size, draws[GEOMETRY])

    def candidates(self, position: int) -> Iterator[int]:
        """Yield the index of the sample at a position, then of those that may stand in for it.

        These are the ones at the following positions; no sample is left out.
        """
        for following in range(position, position + 2 * len(self.samples)):
            yield int(self.sampler.indices(following, 1)[0])


@dataclass(frozen=True)
class _Row:
    """One sample of a batch as read: which it came to be, and what the loader wants of it."""

    sample: Sample
    window: Window
    payload: Any


@dataclass(frozen=True)
class _Pending:
    request: Request
    maps: dict[str, np.ndarray]
    canvas: Any
    tasks: list[Future[_Row]]


class Loader(ABC):
    """Delivers the batches at `position`, `position + stride`, ...; reads ahead in threads.

    `stride` is the number of samples that all ranks together take per step. Any other position
    than the next one empties what was read ahead and starts anew there.
    """

    def __init__(self, plan: Plan, settings: LoaderSettings, stride: int) -> None:
        self.plan = plan
        self.settings = settings
        self._stride = stride
        for source in plan.maps.values():
            for sample in plan.samples:
                source.sample_of(sample)
        self._masks = MaskReader(settings.mask_cache)
        self._cache = HostCache(plan.samples) if settings.cache == "host" else None
        cores = share_of_cores() if settings.affinity else os.sched_getaffinity(0)
        self._pool = ThreadPoolExecutor(
            settings.num_threads,
            thread_name_prefix="warpseg-read",
            initializer=os.sched_setaffinity,
            initargs=(0, cores),
        )
        self._pending: dict[int, _Pending] = {}
        self._corrupt: set[tuple[Path, str]] = set()

    @abstractmethod
    def load(self, position: int) -> Crops:
        """Return the batch whose first sample stands at `position`.

        Raises ValueError naming shard, key and source of a sample that cannot be decoded.
        """

    @abstractmethod
    def _payload(self, sample: Sample, window: Window, canvas: Any, row: int, position: int) -> Any:
        """Read what the loader needs of the image at a position, in a thread."""

    def _image(self, sample: Sample, position: int) -> np.ndarray:
        """Return a whole image, uint8 RGB (H, W, 3), changed as the plan says; it is read-only."""
        image = sample.read_image() if self._cache is None else self._cache.read(sample)
        return image if self.plan.change is None else self.plan.change(image, position)

    def _canvas(self, request: Request) -> Any:
        """Return the memory that `_payload` fills, if it fills any."""
        return None

    def close(self) -> None:
        """Stop reading ahead."""
        self._forget()
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._cache is not None:
            self._cache.close()

    def _forget(self) -> None:
        for pending in self._pending.values():
            for task in pending.tasks:
                task.cancel()
        self._pending.clear()

    def _collect(self, position: int) -> tuple[Crops, list[Any]]:
        """Return a batch's maps (and canvas as image) and its payloads; start the ones after it."""
        for ahead in range(self.settings.prefetch + 1):
            following = position + ahead * self._stride
            if following not in self._pending:
                self._pending[following] = self._submit(self.plan.request(following))
        pending = self._pending.pop(position)
        rows = [task.result() for task in pending.tasks]
        maps = {name: torch.from_numpy(values) for name, values in pending.maps.items()}
        image = torch.from_numpy(pending.canvas) if pending.canvas is not None else torch.empty(0)
        asked = pending.request
        request = replace(
            asked,
            samples=tuple(row.sample for row in rows),
            windows=tuple(row.window for row in rows),
        )
        skipped = sum(a is not b for a, b in zip(asked.samples, request.samples, strict=True))
        crops = Crops(request=request, image=image, maps=maps, skipped=skipped)
        return crops, [row.payload for row in rows]

    def _submit(self, request: Request) -> _Pending:
        height, width = self.plan.geometry.crop_size
        count = len(request.samples)
        maps = {
            name: np.full((count, height, width), source.fill, np.uint8)
            for name, source in self.plan.maps.items()
        }
        if self.plan.classes:
            maps["class"] = np.empty((count, 1, 1), np.uint8)
        canvas = self._canvas(request)
        tasks = [self._pool.submit(self._read, request, row, maps, canvas) for row in range(count)]
        return _Pending(request, maps, canvas, tasks)

    def _read(
        self, request: Request, number: int, maps: dict[str, np.ndarray], canvas: Any
    ) -> _Row:
        """Read one row of a batch, in a thread: its sample, or the next that is not corrupt."""
        position = request.position + number
        for index in self.plan.candidates(position):
            sample = self.plan.samples[index]
            if self._is_corrupt(sample):
                continue
            window = self.plan.window(sample, request.draws[number])
            row_maps = {name: values[number] for name, values in maps.items()}
            try:
                self._read_maps(row_maps, sample, window)
                payload = self._payload(sample, window, canvas, number, position)
                return _Row(sample, window, payload)
            except DAMAGED as error:
                self._skip(sample, error)
        raise self._nothing_left()

    def _read_maps(self, row_maps: dict[str, np.ndarray], sample: Sample, window: Window) -> None:
        for name, source in self.plan.maps.items():
            row_maps[name][:] = source.fill
            holder = source.sample_of(sample)
            self._masks.read_into(row_maps[name], holder, source.extension, window)
        if self.plan.classes:
            row_maps["class"][:] = self._masks.class_of(sample)

    def _is_corrupt(self, sample: Sample) -> bool:
        return (sample.shard, sample.key) in self._corrupt

    def _skip(self, sample: Sample, error: BaseException) -> None:
        """Leave a corrupt sample out from now on, and say so; raise where it is to stop the run."""
        told = damaged(sample, error)
        if self.settings.corrupt == "stop":
            raise told from error
        if not self._is_corrupt(sample):
            self._corrupt.add((sample.shard, sample.key))
            _log.warning("%s; until then the next sample of the stream stands in for it", told)

    def _nothing_left(self) -> ValueError:
        return ValueError(
            f"none of the {len(self.plan.samples)} samples of the stream can be decoded: convert "
            "the data set again"
        )


def share_of_cores() -> set[int]:
    """Return the cores of this rank: an equal share of the machine's, neighbours together."""
    ranks, rank = (
        int(os.environ.get(f"LOCAL_{n}", d)) for n, d in (("WORLD_SIZE", 1), ("RANK", 0))
    )
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[rank * len(cores) // ranks : (rank + 1) * len(cores) // ranks] or cores)


def damaged(sample: Sample, error: BaseException) -> ValueError:
    """Return the error that names the sample which cannot be decoded, and why."""
    error = error.__cause__ or error
    reason = str(error).split("\n")[0].split(" <_io")[0] or type(error).__name__
    return ValueError(
        f"sample {sample.key} ({sample.name}) of {sample.shard} cannot be decoded ({reason}): run "
        f"warpseg check {sample.shard.parent} and convert the data set again"
    )
