"""What every loader shares: the plan of a batch, threads that read ahead, errors that name names.

A loader delivers crops as the shards hold them, uint8; the device half (`streams`) makes network
inputs of them. The plan says everything about a batch without reading a byte, so that the loaders
differ in nothing but who decodes and resamples.
"""

import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import IGNORE
from ..shards import Sample
from .geometry import Window, draw_window
from .masks import MaskReader
from .sampling import GEOMETRY, Sampler
from .settings import GeometrySettings, LoaderSettings

DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)
"""What reading and decoding raise over bytes that are not what they should be."""


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
            raise ValueError(f"there is no {self.extension} for it")
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
    "class" is (N, 1, 1).
    """

    request: Request
    image: Tensor
    maps: dict[str, Tensor]
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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a stream's batches are made of."""

    samples: Sequence[Sample]
    sampler: Sampler
    geometry: GeometrySettings
    batch_size: int
    fill: tuple[int, int, int]
    maps: Mapping[str, MapSource]
    classes: bool = False

    def request(self, position: int) -> Request:
        """Return the batch whose first sample stands at `position` of the stream."""
        indices = self.sampler.indices(position, self.batch_size)
        draws = self.sampler.draws(position, self.batch_size)
        samples = tuple(self.samples[i] for i in indices)
        windows = tuple(
            draw_window(self.geometry, sample.size, row[GEOMETRY])
            for sample, row in zip(samples, draws, strict=True)
        )
        return Request(position=position, samples=samples, windows=windows, draws=draws)


@dataclass(frozen=True)
class _Pending:
    request: Request
    maps: dict[str, np.ndarray]
    canvas: Any
    tasks: list[Future[Any]]


class Loader(ABC):
    """Delivers the batches at `position`, `position + stride`, ...; reads ahead in threads.

    `stride` is the number of samples that all ranks together take per step. Any other position
    than the next one empties what was read ahead and starts anew there.
    """

    def __init__(self, plan: Plan, settings: LoaderSettings, stride: int) -> None:
        self.plan = plan
        self.settings = settings
        self._stride = stride
        self._masks = MaskReader(settings.mask_cache)
        self._pool = ThreadPoolExecutor(settings.num_threads, thread_name_prefix="warpseg-read")
        self._pending: dict[int, _Pending] = {}

    @abstractmethod
    def load(self, position: int) -> Crops:
        """Return the batch whose first sample stands at `position`.

        Raises ValueError naming shard, key and source of a sample that cannot be decoded.
        """

    @abstractmethod
    def _payload(self, sample: Sample, window: Window, canvas: Any, row: int) -> Any:
        """Read what the loader needs of one image, in a thread."""

    def _canvas(self, request: Request) -> Any:
        """Return the memory that `_payload` fills, if it fills any."""
        return None

    def close(self) -> None:
        """Stop reading ahead."""
        self._forget()
        self._pool.shutdown(wait=True, cancel_futures=True)

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
        payloads = [task.result() for task in pending.tasks]
        maps = {name: torch.from_numpy(values) for name, values in pending.maps.items()}
        image = torch.from_numpy(pending.canvas) if pending.canvas is not None else torch.empty(0)
        return Crops(request=pending.request, image=image, maps=maps), payloads

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

    def _read(self, request: Request, row: int, maps: dict[str, np.ndarray], canvas: Any) -> Any:
        sample, window = request.samples[row], request.windows[row]
        try:
            for name, source in self.plan.maps.items():
                holder = source.sample_of(sample)
                self._masks.read_into(maps[name][row], holder, source.extension, window)
            if self.plan.classes:
                maps["class"][row] = self._masks.class_of(sample)
            return self._payload(sample, window, canvas, row)
        except DAMAGED as error:
            raise damaged(sample, error) from error


def damaged(sample: Sample, error: BaseException) -> ValueError:
    """Return the error that names the sample which cannot be decoded, and why."""
    error = error.__cause__ or error
    reason = str(error).split("\n")[0].split(" <_io")[0] or type(error).__name__
    return ValueError(
        f"sample {sample.key} ({sample.name}) of {sample.shard} cannot be decoded ({reason}): run "
        f"warpseg check {sample.shard.parent} and convert the data set again"
    )
