"""Two rankings of masks by how wrong they probably are, from one file of predictions.

Ours reads an image at a time. cleanlab takes all masks and all probabilities as two arrays; pixels
of no class, which it does not know, get the networks' own class, so that they say nothing. The
array of probabilities may be mapped from its file, too, which its softmin reads image by image.
"""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ... import IGNORE
from ...trainers.labels.doubts import Doubts, Opinion


class Ranked(NamedTuple):
    """Doubt of each mask, float64 (N,), greater where it is more probably wrong; the most bytes
    that NumPy and Python held on top of what was there; seconds."""

    doubt: np.ndarray
    bytes: int
    seconds: float


def ours(probabilities: Path, masks: np.ndarray, num_classes: int) -> Ranked:
    """Rank masks, uint8 (N, H, W), by `warpseg diagnose masks`."""

    def rank() -> np.ndarray:
        stored = np.load(probabilities, mmap_mode="r")
        doubts = Doubts(num_classes)
        for number, mask in enumerate(masks):
            doubts.add(opinion_of(np.array(stored[number]), mask))
        made = np.zeros(len(masks))
        for image in doubts.ranking():
            made[image.number] = image.score
        return made

    return _watched(rank)


def cleanlab(probabilities: Path, masks: np.ndarray, method: str, *, mapped: bool) -> Ranked:
    """Rank masks, uint8 (N, H, W), by cleanlab. Raises ImportError where it is not installed."""
    from cleanlab.segmentation.rank import (  # pyright: ignore[reportMissingImports]
        get_label_quality_scores,
    )

    def rank() -> np.ndarray:
        stored = np.load(probabilities, mmap_mode="r" if mapped else None)
        known = np.stack([_without_ignored(p, mask) for p, mask in zip(stored, masks, strict=True)])
        scores, _ = get_label_quality_scores(known, stored, method=method, verbose=False, n_jobs=1)
        return -scores

    return _watched(rank)


def opinion_of(prob: np.ndarray, mask: np.ndarray) -> Opinion:
    """Return a mask and what networks say of it: probabilities float32 (C, H, W)."""
    known = np.where(mask == IGNORE, 0, mask).astype(np.intp)
    given = np.take_along_axis(prob, known[None], 0)[0]
    return Opinion(mask, prob.argmax(0).astype(np.uint8), prob.max(0), given)


def average_precision(doubt: np.ndarray, wrong: np.ndarray) -> float:
    """Return the average precision of a ranking: the mean, over the wrong ones, of the share of
    wrong ones among those ranked as high. doubt: (N,); wrong: bool (N,)."""
    hits = wrong[np.argsort(-doubt, kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def _without_ignored(prob: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask == IGNORE, prob.argmax(0), mask).astype(np.uint8)


def _watched(rank: Callable[[], np.ndarray]) -> Ranked:
    tracemalloc.start()
    started = time.perf_counter()
    try:
        doubt = rank()
        return Ranked(doubt, tracemalloc.get_traced_memory()[1], time.perf_counter() - started)
    finally:
        tracemalloc.stop()
