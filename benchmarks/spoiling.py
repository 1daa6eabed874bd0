"""Masks spoiled as annotators spoil them: classes swapped, outlines shifted, objects left out.

Everything is drawn from a seed and the image's name, so the same words spoil the same masks.
"""

from collections.abc import Sequence

import numpy as np

from .. import IGNORE
from ..shards.source import shuffling_hash

KINDS = ("swap", "shift", "holes")
"""What happens to a spoiled mask, in turn."""
LEAST = 0.01
"""Share of a mask that a class must cover to be swapped."""
SHIFT = (0.05, 0.12)
"""Least and greatest shift, as a share of the mask's height and width."""
HOLES = 3
"""Holes of a mask."""
RADIUS = (0.08, 0.16)
"""Least and greatest radius of a hole, as a share of the mask's shorter side."""


def choose_spoiled(names: Sequence[str], share: float, seed: int) -> dict[str, str]:
    """Return which of some images get a spoiled mask, and its kind: so large a share, at least one,
    kinds in turn."""
    count = max(1, round(share * len(names)))
    order = sorted(names, key=lambda name: shuffling_hash(name, f"spoil {seed}"))
    return {name: KINDS[number % len(KINDS)] for number, name in enumerate(order[:count])}


def spoil(mask: np.ndarray, kind: str, name: str, seed: int) -> np.ndarray:
    """Return a spoiled copy of a mask, uint8 (H, W). kind: of KINDS; name: of the image.

    A mask of one class, in which nothing can be swapped or left out, is shifted, which it survives.
    """
    draw = np.random.default_rng(list(shuffling_hash(name, f"how {seed}")[:8]))
    classes, counts = np.unique(mask[mask != IGNORE], return_counts=True)
    if kind == "swap" and len(classes) > 1:
        return _swap(mask, classes, counts, draw)
    if kind == "holes" and len(classes) > 1:
        return _holes(mask, classes, counts, draw)
    return _shift(mask, draw)


def _swap(
    mask: np.ndarray, classes: np.ndarray, counts: np.ndarray, draw: np.random.Generator
) -> np.ndarray:
    """Exchange two classes that the mask shows."""
    large = classes[counts >= LEAST * counts.sum()]
    first, second = draw.permutation(large if len(large) > 1 else classes)[:2]
    table = np.arange(256, dtype=np.uint8)
    table[[first, second]] = second, first
    return table[mask]


def _shift(mask: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Move a mask against its image; its border is repeated."""
    steps = [
        max(1, round(draw.uniform(*SHIFT) * length)) * draw.choice((-1, 1)) for length in mask.shape
    ]
    rows, columns = (
        np.clip(np.arange(length) + step, 0, length - 1)
        for length, step in zip(mask.shape, steps, strict=True)
    )
    return mask[rows[:, None], columns[None, :]]


def _holes(
    mask: np.ndarray, classes: np.ndarray, counts: np.ndarray, draw: np.random.Generator
) -> np.ndarray:
    """Fill discs with another class than the one at their centres, often a frequent one."""
    made = mask.copy()
    height, width = mask.shape
    rows, columns = np.ogrid[:height, :width]
    for _ in range(HOLES):
        row, column = draw.integers(height), draw.integers(width)
        radius = draw.uniform(*RADIUS) * min(height, width)
        others = classes != mask[row, column]
        chosen = draw.choice(classes[others], p=counts[others] / counts[others].sum())
        made[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = chosen
    return made
