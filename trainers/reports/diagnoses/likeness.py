"""Images that are trained on and scored on as well, or nearly: by a hash of their pixels.

The hash of an image is 128 bits: of its grey version on 9 x 8 and 8 x 9 cells, whether a cell is
darker than the next one, along rows and along columns. Images whose hashes differ in few bits are
compared by the correlation of their versions on 16 x 16 cells. Re-encoding, another size, another
brightness and mirroring change neither much. What is scored on is kept, 300 bytes an image; what is
trained on passes by once, so memory does not grow with it.
"""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ....shards import Sample

NEAR_BITS = 20
"""Bits in which the hashes of alike images differ at most."""
ALIKE = 0.97
"""Least correlation of alike images."""
MOST_PAIRS = 1000
"""Pairs that are kept, the most alike ones."""
_SMALL = 64


@dataclass(frozen=True)
class Alike:
    """A trained and a scored image that look alike; `correlation` in [-1, 1]."""

    correlation: float
    trained: Sample
    scored: Sample
    mirrored: bool


def find_alike(
    trained: Iterable[Sample], scored: Iterable[Sample]
) -> tuple[list[Alike], int, set[str]]:
    """Return the pairs of alike images, the most alike first, their number, of which at most
    MOST_PAIRS are returned, and the keys of the scored images in any of them. No image is paired
    with itself."""
    known = list(scored)
    views = [_small(sample) for sample in known]
    if not views:
        return [], 0, set()
    hashes = np.stack([hash_of(view) for view in views])
    shapes = np.stack([_shape(view) for view in views])
    heap: list[tuple[float, int, Alike]] = []
    count, keys = 0, set[str]()
    for sample in trained:
        view = _small(sample)
        for number, correlation, mirrored in _matches(view, hashes, shapes):
            if known[number].key == sample.key:
                continue
            pair = Alike(correlation, sample, known[number], mirrored)
            count += 1
            keys.add(pair.scored.key)
            push = heapq.heappush if len(heap) < MOST_PAIRS else heapq.heappushpop
            push(heap, (correlation, -count, pair))
    return [pair for _, _, pair in sorted(heap, key=lambda e: (-e[0], -e[1]))], count, keys


def hash_of(grey: np.ndarray) -> np.ndarray:
    """Return the hash of a grey image, uint8 (H, W): two uint64."""
    picture = Image.fromarray(grey)
    across = _cells(picture, 9, 8)
    down = _cells(picture, 8, 9)
    bits = np.concatenate(
        [(across[:, 1:] > across[:, :-1]).ravel(), (down[1:] > down[:-1]).ravel()]
    )
    return np.packbits(bits).view(np.uint64)


def _matches(
    view: np.ndarray, hashes: np.ndarray, shapes: np.ndarray
) -> Iterator[tuple[int, float, bool]]:
    """Yield number, correlation and mirroring of the known images that are like one."""
    found: dict[int, tuple[float, bool]] = {}
    for mirrored in (False, True):
        seen = np.ascontiguousarray(view[:, ::-1]) if mirrored else view
        bits = np.bitwise_count(hashes ^ hash_of(seen)).sum(1)
        near = np.flatnonzero(bits <= NEAR_BITS)
        for number, value in zip(near, shapes[near] @ _shape(seen), strict=True):
            if value >= ALIKE and value > found.get(int(number), (0.0, False))[0]:
                found[int(number)] = (float(value), mirrored)
    yield from ((number, *rest) for number, rest in found.items())


def _small(sample: Sample) -> np.ndarray:
    """Return a small grey version of an image, uint8 (64, 64); JPEGs are decoded small."""
    if sample.extension == "jpg":
        picture = Image.open(io.BytesIO(sample.read("jpg")), formats=("JPEG", "MPO"))
        picture.draft("L", (2 * _SMALL, 2 * _SMALL))
    else:
        picture = Image.fromarray(sample.read_shown())
    return np.asarray(picture.convert("L").resize((_SMALL, _SMALL), Image.Resampling.BOX))


def _shape(view: np.ndarray) -> np.ndarray:
    """Return an image on 16 x 16 cells as a unit vector without its mean, float32 (256,); zeros for
    an image of one level."""
    cells = _cells(Image.fromarray(view), 16, 16).ravel()
    cells = cells - cells.mean()
    length = float(np.linalg.norm(cells))
    return cells / length if length > 1e-6 else np.zeros_like(cells)


def _cells(picture: Image.Image, width: int, height: int) -> np.ndarray:
    small = picture.convert("F").resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, np.float32)
