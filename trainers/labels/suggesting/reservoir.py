"""The images, or regions, to choose among, of however many pass by: memory has a bound."""

import hashlib
import heapq
from collections.abc import Iterator

from .looking import Look


class Reservoir:
    """Keeps at most `most` looks: half those of the highest gain, half drawn evenly.

    The latter keep what is chosen from being all of one kind, however many of that kind a pool
    has. What is kept depends on the looks alone, not on their order.
    """

    def __init__(self, most: int, seed: int) -> None:
        self._seed = seed
        self._room = (most - most // 2, most // 2)
        self._kept: tuple[list[_Entry], list[_Entry]] = ([], [])

    def offer(self, look: Look, gain: float) -> None:
        """Take a look, or not."""
        drawn = drawn_number(look, self._seed)
        for heap, room, rank in zip(self._kept, self._room, (gain, drawn), strict=True):
            entry = (rank, drawn, look.name, look)
            if len(heap) < room:
                heapq.heappush(heap, entry)
            elif entry[:3] > heap[0][:3]:
                heapq.heapreplace(heap, entry)

    def looks(self) -> list[Look]:
        """Return what is kept, each once, by key and place."""
        return [look for _, look in sorted({e[2]: e[3] for e in self._entries()}.items())]

    def _entries(self) -> Iterator["_Entry"]:
        return (entry for heap in self._kept for entry in heap)


def drawn_number(look: Look, seed: int) -> float:
    """Return a number in [0, 1) that is drawn for an image or region, by its key and place."""
    words = f"{seed}:{look.key}:{look.region.top}:{look.region.left}"
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") / 2**64


_Entry = tuple[float, float, tuple[str, int, int], Look]
