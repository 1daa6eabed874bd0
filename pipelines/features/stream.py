"""The stream of batches of records: endless, in the order of the stream that drew them.

Epoch e of a stream with n images and K views holds view e mod K of each image once. A stream with
the seed of the views gives, for K epochs, the very batches that were encoded; after them, and with
other seeds, the same views in an order of its own.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

from ...shards.features.folder import FeatureRecords
from ..batches import LabeledBatch, PairedBatch
from ..loaders.sampling import Sampler
from .records import BatchMaker


class FeatureStream:
    """An endless iterator of batches of records, the same on every run.

    stream and seed decide the order; drawn_by: the sampler's arguments, but for the number of
    images, of the stream that drew the views. total: what the folder holds, by sum. A record of a
    rank's batch is read once.
    """

    skipped = 0
    lost: Mapping[str, int] = {}
    changed: Mapping[str, int] = {}

    def __init__(
        self,
        records: FeatureRecords,
        maker: BatchMaker,
        *,
        batch_size: int,
        stream: str,
        seed: int,
        shuffle_buffer: int,
        drawn_by: Mapping[str, Any],
        total: str,
        threads: int = 1,
        prefetch: int = 2,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more; got {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in [0, {world_size}); got {rank}")
        self.records, self.maker = records, maker
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.epoch_size = records.samples
        own: dict[str, Any] = {"seed": seed, "stream": stream}
        own["shuffle_buffer"] = shuffle_buffer
        self._sampler = Sampler(samples=records.samples, **own)
        self._drawn = Sampler(samples=records.samples, **drawn_by)
        self._same = own == dict(drawn_by)
        self._places = lru_cache(maxsize=8)(self._draw_places)
        self._identity = {"stream": stream, "seed": seed, "features": total}
        self._position, self._prefetch = 0, prefetch
        self._pending: dict[int, Future[LabeledBatch | PairedBatch]] = {}
        self._pool = ThreadPoolExecutor(threads, "warpseg-features")

    def __iter__(self) -> Iterator[LabeledBatch | PairedBatch]:
        return self

    def __next__(self) -> LabeledBatch | PairedBatch:
        step = self.batch_size * self.world_size
        for ahead in range(self._prefetch + 1):
            position = self._position + ahead * step
            if position not in self._pending:
                self._pending[position] = self._pool.submit(self._read, position)
        batch = self._pending.pop(self._position).result()
        self._position += step
        return batch

    @property
    def epoch(self) -> float:
        """Epochs seen so far by all ranks together."""
        return self._position / self.epoch_size

    def place(self, position: int) -> int:
        """Return the record that comes at a position of the stream."""
        epoch = position // self.epoch_size
        view = epoch % self.records.views
        if self._same and epoch == view:
            return position
        index = self._sampler.indices(position, 1)[0]
        return view * self.epoch_size + int(self._places(view)[index])

    def state_dict(self) -> dict[str, Any]:
        """Return the state: plain values, the same on every rank."""
        return {**self._identity, "position": self._position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the state was taken.

        Raises ValueError where it was taken from other features, another seed or another stream.
        """
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise ValueError(
                    f"the state of the {self._identity['stream']} stream has another {name} "
                    f"({state.get(name)}, now {value}): resume with the features and the seed it "
                    "had"
                )
        self._forget()
        self._position = int(state["position"])

    def close(self) -> None:
        """Stop reading ahead, and close the files."""
        self._forget()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.records.close()

    def _forget(self) -> None:
        for task in self._pending.values():
            task.cancel()
        self._pending.clear()

    def _read(self, position: int) -> LabeledBatch | PairedBatch:
        first = position + self.rank * self.batch_size
        places = [self.place(first + row) for row in range(self.batch_size)]
        return self.maker.make([self.records.read(place) for place in places])

    def _draw_places(self, view: int) -> np.ndarray:
        """Return where in epoch `view` of the views' stream each image came."""
        order = self._drawn.indices(view * self.epoch_size, self.epoch_size)
        places = np.empty_like(order)
        places[order] = np.arange(self.epoch_size)
        return places
