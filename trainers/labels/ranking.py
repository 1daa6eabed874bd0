"""Exact confidence thresholds over sets of labels that are too large to be held in memory.

The bits of a float32 in [0, 1] order like the float. The labels pass by twice: the first time the
upper sixteen bits of each confidence are counted, by group, which says in which bin the wanted rank
lies; the second time the lower sixteen bits of the confidences in that bin. What is kept between is
a table of counts, so memory does not grow with the set, and counts of parts add up: to those of all
ranks, whatever their number.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

HIGH_BINS = (int(np.float32(1).view(np.uint32)) >> 16) + 1
"""Values of the upper half of a float32 in [0, 1]."""
LOW_BINS = 1 << 16
KEEP_ALL = np.float32(1e-5)
"""Threshold of a group of which less than one pixel is asked for: all are kept (DMT's code)."""

Chunk = tuple[np.ndarray, np.ndarray]
"""Groups, uint8, and confidences, float32 in [0, 1], of some pixels: arrays of one shape."""
Sum = Callable[[np.ndarray], np.ndarray]
"""Adds up the counts of all ranks."""


def rank_classes(
    passes: Callable[[], Iterable[Chunk]],
    num_classes: int,
    ratio: float,
    *,
    apart: bool,
    total: Sum = lambda counts: counts,
) -> np.ndarray:
    """Return the least confidence to keep of each class, by >=, so that a share of all stays.

    passes: yields (label, confidence) of all pixels of this rank. apart: rank each class by itself,
    as DMT does (`kernels.class_thresholds`): of n values the threshold is number int(n ratio) + 1
    from the top, all are kept where n ratio < 1, and a class without pixels has 0. Otherwise all
    classes have one threshold, which keeps int(n ratio) pixels, at least one, and ties with the
    last of them. The result is float32 (C,). ratio lies in (0, 1].
    """
    if ratio == 1:
        return np.zeros(num_classes, np.float32)
    if apart:
        values, sizes = exact_thresholds(
            passes, num_classes, lambda n: n - 1 - _share(n, ratio), total
        )
        return np.where((_share(sizes, ratio) < 1) & (sizes > 0), KEEP_ALL, values)

    def joined() -> Iterator[Chunk]:
        return ((np.zeros_like(label), confidence) for label, confidence in passes())

    (value,), _ = exact_thresholds(joined, 1, lambda n: n - np.maximum(_share(n, ratio), 1), total)
    return np.full(num_classes, value, np.float32)


def exact_thresholds(
    passes: Callable[[], Iterable[Chunk]],
    num_groups: int,
    rank_of: Callable[[np.ndarray], np.ndarray],
    total: Sum = lambda counts: counts,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the confidence of a rank in each group, float32 (G,), and the groups' sizes, int64.

    passes: yields all pixels of this rank, each time it is called. rank_of: from the sizes of the
    groups, the ranks wanted (0 is the least confidence), below the sizes. Groups without pixels get
    0. Raises ValueError for confidences outside [0, 1] or NaN.
    """
    high = np.zeros((num_groups, HIGH_BINS), np.int64)
    for groups, confidence in passes():
        bits = _bits(confidence)
        _count(high, groups, bits >> 16)
    high = total(high)
    sizes = high.sum(1)
    rank = np.clip(rank_of(sizes), 0, np.maximum(sizes - 1, 0))
    top, rank = _descend(high, rank)
    low = np.zeros((num_groups, LOW_BINS), np.int64)
    for groups, confidence in passes():
        bits = _bits(confidence)
        there = bits >> 16 == top[groups]
        _count(low, groups[there], bits[there] & (LOW_BINS - 1))
    bottom, _ = _descend(total(low), rank)
    values = (top << 16 | bottom).astype(np.uint32).view(np.float32)
    return np.where(sizes > 0, values, np.float32(0)), sizes


def _share(sizes: np.ndarray, ratio: float) -> np.ndarray:
    return np.floor(sizes * ratio).astype(np.int64)


def _bits(confidence: np.ndarray) -> np.ndarray:
    """Return the bits of float32 confidences as int64, checked to lie in [0, 1]."""
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidences must lie in [0, 1]: the network returns no finite numbers")
    # -0.0 has a high bit of its own; adding 0 makes it 0.0.
    return (confidence + np.float32(0)).view(np.uint32).astype(np.int64)


def _count(table: np.ndarray, groups: np.ndarray, digit: np.ndarray) -> None:
    flat = groups.ravel().astype(np.int64) * table.shape[1] + digit.ravel()
    table += np.bincount(flat, minlength=table.size).reshape(table.shape)


def _descend(counts: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the digit that holds a rank in each row of counts, and the rank within it."""
    sums = counts.cumsum(1)
    digit = np.minimum((sums <= rank[:, None]).sum(1), counts.shape[1] - 1)
    before = np.where(digit > 0, np.take_along_axis(sums, digit[:, None] - 1, 1)[:, 0], 0)
    return digit, rank - before
