"""Which samples come when, and the random numbers of each: functions of (seed, stream, position).

A stream is an endless sequence of positions; epoch e holds the positions [e n, (e + 1) n) of a
data set of n samples, each once, in an order of its own. Ranks share the sequence: batch k of rank
r takes the positions [(k W + r) B, (k W + r + 1) B) for W ranks and batches of B. So N ranks see
together what one rank with N times the batch sees, a resumed run needs one number, and every loader
draws the same.
"""

from functools import lru_cache
from zlib import crc32

import numpy as np

DRAWS = 12
"""Uniform numbers of a position: GEOMETRY, then COLOUR; a multiple of the generator's block, 4."""
GEOMETRY = slice(0, 4)
COLOUR = slice(4, 12)


class Sampler:
    """The order and the draws of one stream over `samples` samples."""

    def __init__(self, *, seed: int, stream: str, samples: int, shuffle_buffer: int = 0) -> None:
        if samples < 1:
            raise ValueError(f"the {stream} stream has no samples: choose another split or subset")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more; got {seed}")
        self.samples = samples
        self._entropy = (seed, crc32(stream.encode()))
        self._shuffle_buffer = shuffle_buffer
        self._key = self._words(0, count=2)
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def indices(self, start: int, count: int) -> np.ndarray:
        """Return the sample at each of `count` positions from `start`, int64."""
        positions = np.arange(start, start + count)
        epochs, places = np.divmod(positions, self.samples)
        return np.array(
            [self._order(int(e))[p] for e, p in zip(epochs, places, strict=True)], np.int64
        )

    def draws(self, start: int, count: int) -> np.ndarray:
        """Return uniform numbers of `count` positions from `start`: (count, DRAWS) in [0, 1)."""
        # Philox counts blocks of four numbers: any position is reached without those before it.
        generator = np.random.Philox(key=self._key, counter=start * (DRAWS // 4))
        return np.random.Generator(generator).random((count, DRAWS))

    def seed_at(self, position: int, purpose: int) -> int:
        """Return a 63-bit seed for whatever else is drawn at a position."""
        return int(self._words(1, position, purpose, count=1)[0] >> np.uint64(1))

    def _draw_order(self, epoch: int) -> np.ndarray:
        uniform = np.random.Generator(np.random.Philox(key=self._words(2, epoch, count=2)))
        keys = uniform.random(self.samples)
        if self._shuffle_buffer:
            # A stateless shuffle buffer: each sample is put off by at most so many places.
            keys = np.arange(self.samples) + keys * self._shuffle_buffer
        return np.argsort(keys, kind="stable")

    def _words(self, *path: int, count: int) -> np.ndarray:
        return np.random.SeedSequence((*self._entropy, *path)).generate_state(count, np.uint64)
