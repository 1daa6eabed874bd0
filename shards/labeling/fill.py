"""Polygons filled into pixels by one rule, whatever tool drew them.

Coordinates are continuous: pixel (column x, row y) covers [x, x + 1) x [y, y + 1). A pixel belongs
to a polygon where its centre lies inside by the even-odd rule over all rings of the polygon, so
that a ring within another is a hole. A centre right on an edge belongs to the polygon on its right
(or below): neighbours that share an edge share no pixel and leave none out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_AT_ONCE = 1 << 21
"""Crossings of edges and rows that are held at a time."""


@dataclass(frozen=True)
class Patch:
    """Some pixels of an image: `inside`, bool (h, w), whose first pixel is at (top, left)."""

    top: int
    left: int
    inside: np.ndarray

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(self.inside.sum())

    def within(self, size: tuple[int, int]) -> "Patch":
        """Return what of it lies in an image of (height, width)."""
        top, left = max(self.top, 0), max(self.left, 0)
        rows = slice(top - self.top, max(size[0] - self.top, 0))
        columns = slice(left - self.left, max(size[1] - self.left, 0))
        return Patch(top, left, self.inside[rows, columns])

    def joined(self, other: "Patch") -> "Patch":
        """Return the union with another patch."""
        top, left = min(self.top, other.top), min(self.left, other.left)
        bottom, right = (
            max(a + b for a, b in ends)
            for ends in (
                ((p.top, p.inside.shape[0]) for p in (self, other)),
                ((p.left, p.inside.shape[1]) for p in (self, other)),
            )
        )
        inside = np.zeros((bottom - top, right - left), bool)
        for patch in (self, other):
            patch_of(inside, patch, (top, left))[patch.inside] = True
        return Patch(top, left, inside)


def patch_of(pixels: np.ndarray, patch: Patch, origin: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Return the part of an array, whose first pixel is `origin`, that a patch lies over."""
    top, left = patch.top - origin[0], patch.left - origin[1]
    height, width = patch.inside.shape
    return pixels[top : top + height, left : left + width]


def fill(rings: Sequence[np.ndarray], size: tuple[int, int]) -> Patch:
    """Fill a polygon of rings, float64 (n, 2) of (x, y) in pixels, in an image of (height, width).

    What lies outside the image is cut off; rings of fewer than three corners have no inside.
    """
    rings = [ring for ring in rings if len(ring) > 2]
    if not rings:
        return Patch(0, 0, np.zeros((0, 0), bool))
    corners = np.concatenate(rings)
    left, top = (max(int(v), 0) for v in np.floor(np.maximum(corners.min(0), -1)))
    limits = np.array(size[::-1])
    right, bottom = (int(v) for v in np.minimum(np.ceil(np.clip(corners.max(0), 0, 2**31)), limits))
    if right <= left or bottom <= top:
        return Patch(0, 0, np.zeros((0, 0), bool))
    starts, ends = corners, np.concatenate([np.roll(ring, -1, 0) for ring in rings])
    down = (starts[:, 1] <= ends[:, 1])[:, None]
    upper, lower = np.where(down, starts, ends), np.where(down, ends, starts)
    first, last = (
        np.ceil(np.clip(edge[:, 1], -1, 2**31) - 0.5).astype(np.int64).clip(top, bottom)
        for edge in (upper, lower)
    )
    turns = np.zeros((bottom - top) * (right - left + 1), np.int64)
    parts = max(1, int((last - first).sum()) // _AT_ONCE)
    for edges in np.array_split(np.flatnonzero(last > first), parts):
        rows, columns = _crossings(upper[edges], lower[edges], first[edges], last[edges])
        columns = columns.clip(left, right).astype(np.int64) - left
        turns += np.bincount((rows - top) * (right - left + 1) + columns, minlength=len(turns))
    odd = (turns.reshape(bottom - top, -1).cumsum(1) & 1).astype(bool)
    return Patch(top, left, odd[:, :-1])


def _crossings(
    upper: np.ndarray, lower: np.ndarray, first: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each edge and row of pixel centres (row, first column whose centre is right of
    where they cross)."""
    counts = last - first
    edge = np.repeat(np.arange(len(counts)), counts)
    rows = np.arange(len(edge)) - np.repeat(counts.cumsum() - counts, counts) + first[edge]
    slope = (lower[:, 0] - upper[:, 0]) / (lower[:, 1] - upper[:, 1])
    x = upper[edge, 0] + (rows + 0.5 - upper[edge, 1]) * slope[edge]
    return rows, np.ceil(x - 0.5)


def ellipse(
    centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0
) -> np.ndarray:
    """Return an ellipse as a ring, float64 (n, 2), whose sides leave the curve by 1/50 pixel."""
    reach = max(*radii, 1.0)
    # A side over the angle a leaves a circle by r (1 - cos(a / 2)).
    count = min(int(np.pi / np.arccos(1 - min(0.02 / reach, 1))) + 3, 4096)
    angle = np.arange(count) * (2 * np.pi / count)
    return turned(
        np.stack((radii[0] * np.cos(angle), radii[1] * np.sin(angle)), 1) + centre, centre, degrees
    )


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Return a rectangle as a ring, float64 (4, 2)."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def turned(ring: np.ndarray, pivot: tuple[float, float], degrees: float) -> np.ndarray:
    """Return a ring turned clockwise (as it is seen) around a point."""
    if not degrees:
        return ring
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (ring - pivot) @ np.array([[cosine, sine], [-sine, cosine]]) + pivot
