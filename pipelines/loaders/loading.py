"""What every loader shares: threads that read ahead, caches, what becomes of corrupt samples.

A loader delivers crops as the shards hold them, uint8; the device half (`streams`) makes network
inputs of them.
"""

import logging
import os
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...plain import environment_number
from ...shards import Sample
from ...shards.images import DAMAGED
from ..settings import LoaderSettings
from ..views.geometry import Window
from .cache import HostCache
from .focus import centred
from .masks import MaskReader
from .plan import Crops, Plan, Request, damaged

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Row:
    """One sample of a batch as read: which it came to be, and what the loader wants of it."""

    sample: Sample
    window: Window
    payload: Any


@dataclass(frozen=True)
class _Pending:
    request: Request
    maps: dict[str, Tensor]
    canvas: Tensor | None
    tasks: list[Future[_Row]]


class Loader(ABC):
    """Delivers the batches at `position`, `position + stride`, ...; reads ahead in threads.

    `stride` is the number of samples that all ranks together take per step. Any other position
    than the next one empties what was read ahead and starts anew there.
    """

    def __init__(
        self, plan: Plan, settings: LoaderSettings, stride: int, device: torch.device
    ) -> None:
        self.plan = plan
        # Threads fill memory that a GPU reads by itself; the thread that launches copies nothing.
        self._pinned = device.type == "cuda"
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
        """Return a whole image (H, W, C), changed as the plan says; it is read-only."""
        image = sample.read_image() if self._cache is None else self._cache.read(sample)
        return image if self.plan.change is None else self.plan.change(image, position)

    def _canvas(self, request: Request) -> Tensor | None:
        """Return the memory that `_payload` fills, if it fills any."""
        return None

    def _room(self, *shape: int, dtype: torch.dtype = torch.uint8) -> Tensor:
        """Return memory of the host for a batch, not filled."""
        return torch.empty(shape, dtype=dtype, pin_memory=self._pinned)

    def close(self) -> None:
        """Stop reading ahead."""
        self._forget()
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._cache is not None:
            self._cache.close()

    def restart(self) -> None:
        """Forget what was read ahead: what comes at a position has changed."""
        self._forget()

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
        image = torch.empty(0) if pending.canvas is None else pending.canvas
        asked = pending.request
        request = replace(
            asked,
            samples=tuple(row.sample for row in rows),
            windows=tuple(row.window for row in rows),
        )
        skipped = sum(a is not b for a, b in zip(asked.samples, request.samples, strict=True))
        crops = Crops(request=request, image=image, maps=pending.maps, skipped=skipped)
        return crops, [row.payload for row in rows]

    def _submit(self, request: Request) -> _Pending:
        height, width = self.plan.geometry.crop_size
        count = len(request.samples)
        maps = {name: self._room(count, height, width) for name in self.plan.maps}
        if self.plan.classes:
            maps["class"] = self._room(count, 1, 1)
        canvas = self._canvas(request)
        filled = {name: values.numpy() for name, values in maps.items()}
        image = None if canvas is None else canvas.numpy()
        tasks = [self._pool.submit(self._read, request, row, filled, image) for row in range(count)]
        return _Pending(request, maps, canvas, tasks)

    def _read(
        self, request: Request, number: int, maps: dict[str, np.ndarray], canvas: Any
    ) -> _Row:
        """Read one row of a batch, in a thread: its sample, or the next that is not corrupt."""
        position = request.position + number
        for sample in self.plan.standins(request, number):
            if self._is_corrupt(sample):
                continue
            row_maps = {name: values[number] for name, values in maps.items()}
            try:
                window = self._window(position, sample, request.draws[number])
                self._read_maps(row_maps, sample, window)
                payload = self._payload(sample, window, canvas, number, position)
                return _Row(sample, window, payload)
            except DAMAGED as error:
                self._skip(sample, error)
        raise self._nothing_left()

    def _window(self, position: int, sample: Sample, draws: np.ndarray) -> Window:
        """Return the window of a sample at a position, centred on a class where that is drawn."""
        window = self.plan.window(sample, draws)
        focus = None if self.plan.focus is None else self.plan.focus.at(position)
        if focus is None or self.plan.samples[focus.index] is not sample:
            return window
        extension = self.plan.maps["mask"].extension
        pixel = self._masks.place_of(sample, extension, focus.label, focus.pixel)
        return centred(window, pixel, focus.at, self.plan.geometry.padding)

    def _read_maps(self, row_maps: dict[str, np.ndarray], sample: Sample, window: Window) -> None:
        for name, source in self.plan.maps.items():
            row_maps[name][:] = source.fill
            holder = source.sample_of(sample)
            if holder is None:
                row_maps[name][:] = source.without
                continue
            self._masks.read_into(row_maps[name], holder, source.extension, window)
        if self.plan.classes:
            row_maps["class"][:] = self._masks.class_of(sample)

    def _is_corrupt(self, sample: Sample) -> bool:
        return (sample.shard, sample.key) in self._corrupt

    def _skip(self, sample: Sample, error: BaseException) -> None:
        """Leave a corrupt sample out from now on, and say so; raise where it is to stop the run."""
        told = damaged(sample, error)
        if self.settings.corrupt == "stop" and not sample.optional:
            raise told from error
        if not self._is_corrupt(sample):
            self._corrupt.add((sample.shard, sample.key))
            _log.warning("%s; until then another sample of the stream stands in for it", told)

    def _nothing_left(self) -> ValueError:
        return ValueError(
            f"none of the {len(self.plan.samples)} samples of the stream can be decoded: convert "
            "the data set again"
        )


def share_of_cores() -> set[int]:
    """Return the cores of this rank: an equal share of the machine's, neighbours together."""
    ranks, rank = (environment_number(f"LOCAL_{n}", d) for n, d in (("WORLD_SIZE", 1), ("RANK", 0)))
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[rank * len(cores) // ranks : (rank + 1) * len(cores) // ranks] or cores)
