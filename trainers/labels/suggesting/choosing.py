"""Choose what to draw next among candidates, greedily: what covers most of what is unsure.

    value(i)    = sum over candidates j of weight(j) * max(0, far(j) - distance(i, j))
    far(j)      = distance of j to the nearest labeled or chosen image
    weight(j)   = gain(j), over the mean of all
    gain(j)     = sum over classes c of unsure_c(j) / sqrt(have_c + PRIOR)

A mask teaches about the images that are like its own, the more so the less is known of them: the
value of an image is by how much nearer the labeled images come to all others, weighed by what these
would gain (a weighted facility location, which is submodular: greed comes close to the best).
`unsure` are the pixels of a class that are to be expected, by their entropy; `have` those that are
labeled, and to be expected of what is chosen, both in images' worth: rare classes weigh more, until
there are some of them. Distances are between unit features about their mean. A second image of one
street brings nothing nearer; an image like no other brings itself alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .looking import Look
from .reservoir import drawn_number
from .settings import SuggestSettings

PRIOR = 0.1
"""Images' worth of pixels of a class that count as labeled from the beginning."""
BLOCK = 512
"""Candidates whose distances to all others are found at once."""
TINY = 1e-6


@dataclass(frozen=True)
class Known:
    """What is labeled: images' worth of pixels of each class, (C,), and features (L, D)."""

    have: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Choice:
    """A candidate that was chosen, and why.

    `gains` are those of the classes, (C,), and `distance` in units of the mean distance between
    candidates and what is labeled, both when it was chosen; `nearest` is the key of the chosen
    image that is nearest to it, "" for one of the labeled; `stands_for` the share of candidates
    that nothing labeled or chosen before is nearer to.
    """

    look: Look
    value: float
    gains: np.ndarray
    distance: float
    nearest: str
    stands_for: float


def class_gains(unsure: np.ndarray, have: np.ndarray) -> np.ndarray:
    """Return what each class would gain, (..., C), from unsure pixels where `have` are labeled."""
    return unsure / np.sqrt(have + PRIOR)


def merit(look: Look, known: Known, settings: SuggestSettings) -> float:
    """Return by what a look is ranked where nothing is chosen yet."""
    if settings.by == "random":
        return drawn_number(look, settings.seed)
    if settings.by == "entropy":
        return look.entropy
    return float(class_gains(look.unsure, known.have).sum())


def choose(looks: Sequence[Look], known: Known, settings: SuggestSettings) -> list[Choice]:
    """Choose as many candidates as the settings say, or as there are, one after the other, best
    first.

    By gain no two are alike in features, and none is like a labeled image, as long as there are
    others. By entropy, or at random, neither gains nor features count.
    """
    fixed = None if settings.by == "gain" else np.array([merit(x, known, settings) for x in looks])
    have = known.have.astype(np.float64)
    far, between = _distances(looks, known)
    unit = max(float(far.mean()), TINY)  # without features all are strangers
    unsure = np.stack([look.unsure for look in looks]).astype(np.float64)
    nearest = [""] * len(looks)
    chosen: list[Choice] = []
    left = np.ones(len(looks), bool)
    for _ in range(min(settings.count, len(looks))):
        gains = class_gains(unsure, have)
        value = _covered(between, far, gains.sum(1)) if fixed is None else fixed
        best = int(np.where(left, value, -1).argmax())
        look, left[best] = looks[best], False
        nearer = np.flatnonzero(between[best] < far)
        chosen.append(
            Choice(
                look=look,
                value=float(value[best]),
                gains=gains[best],
                distance=float(far[best]) / unit,
                nearest=nearest[best],
                stands_for=len(nearer) / len(looks),
            )
        )
        have += look.expected
        for place in nearer:
            nearest[place] = look.key
        far = np.minimum(far, between[best])
    return chosen


def _covered(between: np.ndarray, far: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Return by how much each candidate, (M,), would bring what is labeled nearer to all, by gain.

    between: float16 (M, M); the candidates pass by in blocks.
    """
    weight = (gain / max(float(gain.mean()), TINY)).astype(np.float32)
    total = np.zeros(len(far), np.float64)
    for start in range(0, len(far), BLOCK):
        rows = slice(start, start + BLOCK)
        total += weight[rows] @ np.maximum(far[rows, None] - between[rows], 0)
    return total


def _distances(looks: Sequence[Look], known: Known) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance of each candidate to the nearest labeled image, float32 (M,), that of
    strangers where nothing is labeled; and those between candidates, float16 (M, M)."""
    feature = np.stack([look.feature for look in looks]).astype(np.float32)
    labeled = known.features.astype(np.float32)
    mean = np.concatenate([feature, labeled]).mean(0) if len(labeled) else feature.mean(0)
    feature, far = _unit(feature - mean), np.full(len(looks), np.sqrt(2), np.float32)
    between = np.empty((len(looks), len(looks)), np.float16)
    for start in range(0, len(looks), BLOCK):
        rows = slice(start, start + BLOCK)
        between[rows] = _apart(feature[rows], feature)
        if len(labeled):
            far[rows] = _apart(feature[rows], _unit(labeled - mean)).min(1)
    np.fill_diagonal(between, 0)
    return far, between


def _apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the distances between unit vectors, (M, D) and (N, D): float32 (M, N)."""
    return np.sqrt(np.maximum(2 - 2 * (first @ second.T), 0))


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), TINY)
