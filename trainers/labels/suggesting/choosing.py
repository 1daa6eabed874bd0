"""Choose what to draw next among candidates: what it would teach times how new it is, greedily.

    value(i) = gain(i) * distance(i)
    gain(i)     = sum over classes c of unsure_c(i) / sqrt(have_c + PRIOR)
    distance(i) = to the nearest labeled or chosen image, between unit features about their mean

`unsure` are the pixels of a class that are to be expected, by their entropy; `have` those that are
labeled, and to be expected of what is chosen, both in images' worth. So rare classes weigh more,
until there are some of them; a second image of one street weighs nothing. The greedy choice by
distance alone is that of k-centre.
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
    image that is nearest to it, "" for one of the labeled.
    """

    look: Look
    value: float
    gains: np.ndarray
    distance: float
    nearest: str


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
    feature, distance, unit = _distances(looks, known)
    unsure = np.stack([look.unsure for look in looks]).astype(np.float64)
    nearest = [""] * len(looks)
    chosen: list[Choice] = []
    left = np.ones(len(looks), bool)
    for _ in range(min(settings.count, len(looks))):
        gains = class_gains(unsure, have)
        value = gains.sum(1) * distance if fixed is None else fixed
        value = np.where(left, value, -1)
        best = int(value.argmax())
        look, left[best] = looks[best], False
        chosen.append(
            Choice(
                look,
                float(value[best]),
                gains[best],
                float(distance[best] / unit),
                nearest[best],
            )
        )
        have += look.expected
        now = np.linalg.norm(feature - feature[best], axis=1)
        for place in np.flatnonzero(now < distance):
            nearest[place] = look.key
        distance = np.minimum(distance, now)
    return chosen


def _distances(looks: Sequence[Look], known: Known) -> tuple[np.ndarray, np.ndarray, float]:
    """Return unit features of candidates (M, D), their distance to the nearest labeled image (M,),
    and the mean of these distances."""
    feature = np.stack([look.feature for look in looks]).astype(np.float32)
    labeled = known.features.astype(np.float32).reshape(len(known.features), -1)
    mean = np.concatenate([feature, labeled]).mean(0) if len(labeled) else feature.mean(0)
    feature = _unit(feature - mean)
    distance = np.full(len(looks), np.sqrt(2), np.float32)
    for one in _unit(labeled - mean) if len(labeled) else ():
        distance = np.minimum(distance, np.linalg.norm(feature - one, axis=1))
    return feature, distance, float(max(distance.mean(), 1e-6))


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
