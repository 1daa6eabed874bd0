"""Outlines of pixels as polygons: exact along the edges of pixels, then simplified.

A region's outline runs clockwise as it is seen, holes the other way; pixels that touch at a corner
alone are apart. Filled by the rule of `fill`, an outline that is not simplified gives back its
pixels; one simplified to a tolerance changes only pixels whose centre is within it of the border.
"""

from collections.abc import Iterator

import numpy as np

Ring = np.ndarray


def trace(inside: np.ndarray) -> list[list[Ring]]:
    """Return the regions of pixels, bool (H, W): of each its outline, then its holes, as rings of
    corners (x, y), float64 (n, 2), without points in between."""
    if not inside.any():
        return []
    rings, owner = _rings(np.pad(inside, 1).astype(np.int8))
    regions: dict[int, list[Ring]] = {}
    parents: dict[int, int] = {}
    holes = []
    for number, ring in enumerate(rings):
        if _area(ring) > 0:
            regions[number], parents[number] = [ring], number
        else:
            holes.append((tuple(ring[np.lexsort((ring[:, 1], ring[:, 0]))[0]].astype(int)), number))
    # What lies left of a hole's leftmost corner is the outline, or a hole whose parent is known.
    for (column, row), number in sorted(holes):
        left = np.flatnonzero(owner[row, :column])[-1]
        parents[number] = parents[int(owner[row, left]) - 1]
        regions[parents[number]].append(rings[number])
    return list(regions.values())


def _rings(padded: np.ndarray) -> tuple[list[Ring], np.ndarray]:
    """Link the straight sides of all pixels into rings; return them, and which ring, from 1, runs
    along the left side of each pixel, int32 (H, W + 1)."""
    across = _sides(padded[1:, 1:-1] - padded[:-1, 1:-1])
    along = _sides((padded[1:-1, 1:] - padded[1:-1, :-1]).T)
    # A side is (line, from, to, sign): rightwards (+) below the line, upwards (+) right of it.
    line, low, high, sign = across
    right = sign > 0
    starts_a = np.stack((np.where(right, low, high), line), 1)
    ends_a = np.stack((np.where(right, high, low), line), 1)
    line_b, low_b, high_b, sign_b = along
    up = sign_b > 0
    starts_b = np.stack((line_b, np.where(up, high_b, low_b)), 1)
    ends_b = np.stack((line_b, np.where(up, low_b, high_b)), 1)
    # Where four sides meet, rightwards goes on down and leftwards up: the corner parts the pixels.
    after_a = _next(ends_a, right, starts_b, ~up)
    after_b = _next(ends_b, up, starts_a, right)
    owner = np.zeros((padded.shape[0] - 2, padded.shape[1] - 1), np.int32)
    seen = np.zeros(len(starts_a), bool)
    rings: list[Ring] = []
    next_a, next_b = after_a.tolist(), after_b.tolist()
    for first in range(len(starts_a)):
        if seen[first]:
            continue
        rings.append(np.zeros(0))
        side, chain = first, []
        while not seen[side]:
            seen[side] = True
            upright = next_a[side]
            chain += [starts_a[side], starts_b[upright]]
            owner[low_b[upright] : high_b[upright], line_b[upright]] = len(rings)
            side = next_b[upright]
        rings[-1] = np.array(chain, np.float64)
    return rings, owner


def _sides(change: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the longest runs of one sign along each line: (line, first, end, sign)."""
    lines, width = change.shape
    flat = np.pad(change, ((0, 0), (0, 1))).ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=np.int8(0)))
    signs = flat[edges]
    ends = np.append(edges[1:], lines * (width + 1))
    keep = signs != 0
    line = edges[keep] // (width + 1)
    first = edges[keep] - line * (width + 1)
    return line, first, ends[keep] - line * (width + 1), signs[keep]


def _next(
    ends: np.ndarray, wanted: np.ndarray, starts: np.ndarray, kinds: np.ndarray
) -> np.ndarray:
    """Return for each end the side that starts there, of the wanted kind where there are two."""
    width = int(max(ends.max(), starts.max())) + 1
    keys = (starts[:, 1] * width + starts[:, 0]) * 2 + kinds
    order = np.argsort(keys)
    keys = keys[order]
    corner = (ends[:, 1] * width + ends[:, 0]) * 2
    first = np.minimum(np.searchsorted(keys, corner + wanted), len(keys) - 1)
    second = np.minimum(np.searchsorted(keys, corner + ~wanted), len(keys) - 1)
    return order[np.where(keys[first] == corner + wanted, first, second)]


def _area(ring: Ring) -> float:
    """Return twice the signed area; positive where the ring runs clockwise as it is seen."""
    x, y = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def simplify(ring: Ring, tolerance: float) -> Ring:
    """Leave out corners of a ring, float64 (n, 2), so that none was further than `tolerance` pixels
    from the side that takes its place (Douglas and Peucker, 1973).

    A ring of which fewer than three corners would stay is returned as it is.
    """
    if tolerance <= 0 or len(ring) <= 4:
        return ring
    far = int(((ring - ring[0]) ** 2).sum(1).argmax())
    closed = np.concatenate((ring, ring[:1]))
    kept = {0, far, *_kept(closed, 0, far, tolerance), *_kept(closed, far, len(ring), tolerance)}
    return ring[sorted(kept)] if len(kept) > 2 else ring


def _kept(points: np.ndarray, first: int, last: int, tolerance: float) -> Iterator[int]:
    waiting = [(first, last)]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        gaps = _distances(points[first + 1 : last], points[first], points[last])
        worst = int(gaps.argmax())
        if gaps[worst] > tolerance:
            middle = first + 1 + worst
            yield middle
            waiting += [(first, middle), (middle, last)]


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the distance of points from a side (not from the line through it)."""
    side = end - start
    length = float(side @ side)
    along = ((points - start) @ side / length).clip(0, 1)[:, None] if length else 0.0
    return np.hypot(*(points - start - along * side).T)


def joined(rings: list[Ring]) -> Ring:
    """Return an outline and its holes as one ring, for tools without holes: each hole hangs on a
    cut of no width, from its corner that is nearest to the outline."""
    whole = rings[0]
    for hole in rings[1:]:
        gaps = ((whole[:, None] - hole[None, :1]) ** 2).sum(2)
        here = int(gaps[:, 0].argmin())
        there = int(((hole - whole[here]) ** 2).sum(1).argmin())
        turn = np.roll(hole, -there, 0)
        cut = [whole[: here + 1], turn, turn[:1], whole[here:]]
        whole = np.concatenate(cut)
    return whole
