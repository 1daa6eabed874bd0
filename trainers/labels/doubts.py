"""Masks that are probably wrong, by what networks say of them that did not learn them.

Of a pixel that the mask calls a and the networks call b, p_b and p_a being their probabilities,

    d = (p_b - p_a) min(-ln p_a, L) / L,    L = ln 10^4

is the doubt, in [0, 1]: large only where the networks are sure of b and rule a out. s_i[a, b] is
its sum over the pixels of image i, divided by the image's labeled pixels. Networks take some
classes for others in every image: what is usual, the mean over the images u[a, b], does not count,
and a pair of classes counts the less the more usual it is,

    score_i = sum over a, b of max(0, s_i[a, b] - u[a, b]) / sqrt(u[a, b] + 10^-4).

A region is a connected part of a coarse grid in which one pair is doubted; its score is its doubt
by the same weights. The images pass by once. What is kept of each are its pairs and its few largest
regions, some hundred bytes: no array over all images' pixels exists.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ... import IGNORE

CAP = math.log(1e4)
"""Greatest -ln p of a mask's class that counts."""
RARE = 1e-4
"""Share of an image below which pairs of classes are equally rare."""
GRID = 32
"""Cells along the longer side of an image in which regions are looked for."""
DENSE = 0.1
"""Mean doubt of one pair from which a cell belongs to a region."""
PAIRS, REGIONS = 4, 8
"""Pairs of an image in which regions are looked for, and regions that are kept of an image."""


class Opinion(NamedTuple):
    """A mask and what networks say: the mask and the most probable classes, uint8 (H, W), and
    their probabilities, float32 (H, W) in [0, 1]: of the most probable class, of the mask's."""

    mask: np.ndarray
    label: np.ndarray
    sure: np.ndarray
    given: np.ndarray


class Region(NamedTuple):
    """A part of an image: its box in pixels, the mask's class there and the networks', and how much
    it is doubted (score, and share of the image's labeled pixels)."""

    top: int
    left: int
    height: int
    width: int
    given: int
    predicted: int
    share: float
    score: float = 0.0


@dataclass(frozen=True)
class Doubted:
    """An image and how much its mask is doubted."""

    number: int
    """its place in the order in which images came"""
    score: float
    share: float
    """doubt of all its labeled pixels together, as a share of them"""
    pair: tuple[int, int] | None
    """the mask's class and the networks' that add most to the score"""
    regions: tuple[Region, ...]


def doubt_of(opinion: Opinion) -> np.ndarray:
    """Return the doubt of each pixel, float32 (H, W) in [0, 1]; 0 where the mask has no class."""
    differs = (opinion.mask != opinion.label) & (opinion.mask != IGNORE)
    ruled_out = np.minimum(-np.log(np.maximum(opinion.given, 1e-9)), CAP) / CAP
    return np.where(differs, (opinion.sure - opinion.given) * ruled_out, 0).astype(np.float32)


class Doubts:
    """Collects the doubts of masks, an image at a time."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._pairs: list[np.ndarray] = []
        self._shares: list[np.ndarray] = []
        self._regions: list[tuple[Region, ...]] = []

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, opinion: Opinion) -> None:
        """Take in one image."""
        doubt, count = doubt_of(opinion), max(int((opinion.mask != IGNORE).sum()), 1)
        where = doubt > 0
        pair = opinion.mask[where].astype(np.int32) * self.num_classes + opinion.label[where]
        sums = np.bincount(pair, weights=doubt[where], minlength=self.num_classes**2) / count
        pairs = np.flatnonzero(sums)
        self._pairs.append(pairs.astype(np.int32))
        self._shares.append(sums[pairs].astype(np.float32))
        worst = pairs[np.argsort(-sums[pairs], kind="stable")[:PAIRS]]
        found = [
            region
            for number in worst
            for region in find_regions(opinion, doubt, divmod(int(number), self.num_classes))
        ]
        largest = sorted(found, key=lambda region: -region.share)[:REGIONS]
        self._regions.append(tuple(r._replace(share=r.share / count) for r in largest))

    def usual(self) -> np.ndarray:
        """Return the mean share of each pair over the images, float64 (C, C)."""
        total = np.zeros(self.num_classes**2)
        for pairs, shares in zip(self._pairs, self._shares, strict=True):
            total[pairs] += shares
        return (total / max(len(self), 1)).reshape(self.num_classes, self.num_classes)

    def ranking(self) -> list[Doubted]:
        """Return all images, the most doubted first; ties in the order in which they came."""
        usual = self.usual().ravel()
        weight = 1 / np.sqrt(usual + RARE)
        found = []
        for number, (pairs, shares) in enumerate(zip(self._pairs, self._shares, strict=True)):
            parts = np.maximum(shares - usual[pairs], 0) * weight[pairs]
            worst = divmod(int(pairs[parts.argmax()]), self.num_classes) if parts.any() else None
            regions = sorted(self._weighed(number, weight), key=lambda region: -region.score)
            found.append(
                Doubted(number, float(parts.sum()), float(shares.sum()), worst, tuple(regions))
            )
        return sorted(found, key=lambda image: -image.score)

    def _weighed(self, number: int, weight: np.ndarray) -> Iterator[Region]:
        for region in self._regions[number]:
            pair = region.given * self.num_classes + region.predicted
            yield region._replace(score=float(region.share * weight[pair]))


def find_regions(opinion: Opinion, doubt: np.ndarray, pair: tuple[int, int]) -> list[Region]:
    """Return the regions in which a pair of classes is doubted; `share` is the sum of their doubt,
    in pixels."""
    of_pair = (opinion.mask == pair[0]) & (opinion.label == pair[1])
    height, width = doubt.shape
    side = max(math.ceil(max(height, width) / GRID), 1)
    cells = block_sums(np.where(of_pair, doubt, 0), side)
    regions = []
    for rows, columns in _connected(cells >= DENSE * side**2):
        top, left = int(rows.min()) * side, int(columns.min()) * side
        below, right = (int(rows.max()) + 1) * side, (int(columns.max()) + 1) * side
        box = (top, left, min(below, height) - top, min(right, width) - left)
        regions.append(Region(*box, *pair, float(cells[rows, columns].sum())))
    return regions


def block_sums(values: np.ndarray, side: int) -> np.ndarray:
    """Return the sums of blocks of `side` x `side`, float64; those at the far borders are cut."""
    rows = np.add.reduceat(values, np.arange(0, values.shape[0], side), axis=0, dtype=np.float64)
    return np.add.reduceat(rows, np.arange(0, values.shape[1], side), axis=1)


def stands_out(scores: Sequence[float]) -> int:
    """Return how many of the scores, greatest first, are outliers: above the median by more than
    five deviations (estimated by the median distance to it)."""
    values = np.asarray(scores, float)
    if not len(values):
        return 0
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))
    return int((values > middle + 5 * spread).sum())


def _connected(there: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows, columns) of each set of cells that touch by their sides."""
    left = {(int(row), int(column)) for row, column in np.argwhere(there)}
    while left:
        found, edge = [], [left.pop()]
        while edge:
            row, column = cell = edge.pop()
            found.append(cell)
            near = {(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)}
            edge += near & left
            left -= near
        yield tuple(np.array(sorted(found)).T)  # pyright: ignore[reportReturnType]
