"""The plan of a stream whose images come from a pool, wholly or in part.

Which rows of a step the pool feeds is fixed: its share of them, spread evenly over the joined batch
of all ranks. So the ranks see together what one rank with the joined batch sees.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...shards import Sample
from ...shards.pools.addresses import list_sum, spelt_out
from ...shards.pools.lane import Lane, Place, Pool
from ...shards.pools.settings import PoolSettings
from ..settings import LoaderSettings
from .plan import Plan, Request


def pooled_rows(total: int, share: float) -> list[int]:
    """Return the rows of a joined batch of `total` images that the pool feeds."""
    return [row for row in range(total) if int((row + 1) * share + 1e-9) > int(row * share + 1e-9)]


def open_pool(
    settings: PoolSettings,
    loader: LoaderSettings,
    seed: int,
    rank: int,
    batch_size: int,
    world_size: int,
) -> "PooledRows":
    """Open what a pool gives to a rank's batches; all that is random depends on the seed.

    Raises ValueError for a share of no row, a cache, and as `spelt_out` does.
    """
    if loader.cache != "none":
        raise ValueError(
            f"--loader.cache {loader.cache} keeps images that come again, and those of a pool "
            "hardly do: choose --loader.cache none"
        )
    total = batch_size * world_size
    lanes = len(pooled_rows(total, settings.share))
    if not lanes:
        raise ValueError(
            f"--pool.share {settings.share} of {total} unlabeled images a step is none: give the "
            "pool a larger share, or the step more images"
        )
    addresses = spelt_out(settings.urls)
    pool = Pool(addresses=addresses, settings=settings, seed=seed, lanes=lanes)
    return PooledRows(pool, rank, batch_size, total)


class PooledRows:
    """The rows of one rank that a pool feeds, step by step.

    A step that was not passed yet can be taken again: loaders read ahead, and start anew.
    """

    def __init__(self, pool: Pool, rank: int, batch_size: int, total: int) -> None:
        rows = pooled_rows(total, pool.settings.share)
        first = rank * batch_size
        self.pool, self.total = pool, total
        self.others = [row for row in range(total) if row not in rows]
        self.numbers = {
            row - first: number
            for number, row in enumerate(rows)
            if first <= row < first + batch_size
        }
        """lane of each row of this rank"""
        self.lost = (0, 0)
        """how many images and tars were left out before the steps that were not passed"""
        self.changed = 0
        """how many images of the steps before did not show all of their files"""
        self._taken: dict[int, tuple[dict[int, Sample], dict[str, Any]]] = {}
        self._lanes: list[Lane] = []
        self._lost_before = (0, 0)
        self._changed_before = 0
        self.go_to(None)

    def go_to(self, state: Mapping[str, Any] | None) -> None:
        """Begin at a state, or at the beginning."""
        self.close()
        places: list[Place | None] = [None] * len(self.numbers)
        if state is not None:
            places = [Place.of_plain(place) for place in state["places"]]
            self.lost = self._lost_before = int(state["lost_images"]), int(state["lost_tars"])
            self.changed = self._changed_before = int(state.get("changed_images", 0))
        self._lanes = [
            Lane(self.pool, number, place)
            for number, place in zip(self.numbers.values(), places, strict=True)
        ]

    def take(self, position: int) -> dict[int, Sample]:
        """Return the samples of the step at a position, by row. Raises ConnectionError where the
        pool cannot be read any more."""
        if position not in self._taken:
            if self._taken and position != max(self._taken) + self.total:
                raise ValueError(f"a pool is read in order; position {position} is not next")
            for lane in self._lanes:
                lane.start()
            state = self._state()
            rows = zip(self.numbers, self._lanes, strict=True)
            samples: dict[int, Sample] = {row: lane.take() for row, lane in rows}
            self._taken[position] = samples, state
        return self._taken[position][0]

    def passed(self, position: int) -> None:
        """Let go of the steps before a position."""
        state = self.state(position)
        self.lost = state["lost_images"], state["lost_tars"]
        self.changed = state.get("changed_images", 0)
        for old in [taken for taken in self._taken if taken < position]:
            del self._taken[old]

    def state(self, position: int) -> dict[str, Any]:
        """Return the state before the step at a position, plain values."""
        return self._taken[position][1] if position in self._taken else self._state()

    def _state(self) -> dict[str, Any]:
        images, tars = self._lost_before
        changed = self._changed_before + sum(lane.changed_images for lane in self._lanes)
        return {
            "places": [lane.place.to_plain() for lane in self._lanes],
            "lost_images": images + sum(lane.lost_images for lane in self._lanes),
            "lost_tars": tars + sum(lane.lost_tars for lane in self._lanes),
            **({"changed_images": changed} if changed else {}),
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What a state can be taken up with: plain values by name."""
        return {"pool": list_sum(self.pool.addresses), "rows": self.total}

    def close(self) -> None:
        """Stop reading."""
        for lane in self._lanes:
            lane.close()
        self._lanes, self._taken = [], {}


@dataclass(frozen=True, kw_only=True)
class MixedPlan(Plan):
    """A plan that takes some rows of each batch from a pool."""

    pooled: PooledRows

    def request(self, position: int) -> Request:
        """Return the batch whose first sample stands at `position`, which must be the next, or one
        that was not passed yet."""
        samples = self._samples(position)
        draws = self.sampler.draws(position, self.batch_size)
        windows = tuple(map(self.window, samples, draws))
        return Request(position=position, samples=samples, windows=windows, draws=draws)

    def standins(self, request: Request, number: int) -> Iterator[Sample]:
        """Yield the sample of a row, then those of the others, which may stand in for it."""
        yield from (*request.samples[number:], *request.samples[:number])

    def _samples(self, position: int) -> tuple[Sample, ...]:
        pooled, others = self.pooled.take(position), self.pooled.others
        step, first = divmod(position, self.pooled.total)

        def own(row: int) -> Sample:
            place = step * len(others) + others.index(first + row)
            return self.samples[int(self.sampler.indices(place, 1)[0])]

        rows: Sequence[int] = range(self.batch_size)
        return tuple(pooled[row] if row in pooled else own(row) for row in rows)
