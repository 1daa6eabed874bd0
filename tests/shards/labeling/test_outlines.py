"""Outlines give back their pixels; simplified ones stay within their tolerance of the border."""

import numpy as np
import pytest
from warpseg.shards.labeling.fill import fill, patch_of
from warpseg.shards.labeling.outlines import Ring, joined, simplify, trace


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    y, x = np.indices((36, 50))
    rings = np.hypot(y - 18, x - 25).astype(int) // 6 % 2 == 0
    noise = [rng.random((14, 11)) < share for share in (0.1, 0.5, 0.7, 0.95)]
    corner = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], bool)
    frame = np.ones((9, 9), bool)
    frame[1:8, 1:8] = False
    frame[3:6, 3:6] = True
    frame[4, 4] = False
    holes = np.ones((12, 12), bool)
    holes[2:4, 2:4] = holes[2:10, 6] = holes[8, 2:5] = False
    return [
        rings,
        *noise,
        corner,
        ~corner,
        frame,
        holes,
        np.ones((1, 1), bool),
        np.ones((3, 5)) > 0,
    ]


def filled(polygons: list[list[Ring]], size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, int)
    for polygon in polygons:
        patch = fill(polygon, size)
        patch_of(mask, patch)[:] += patch.inside
    assert mask.max() <= 1
    return mask > 0


@pytest.mark.parametrize("number", range(len(pictures())))
def test_an_outline_gives_back_its_pixels(number: int) -> None:
    inside = pictures()[number]
    regions = trace(inside)
    assert np.array_equal(filled(regions, inside.shape), inside)
    assert np.array_equal(filled([[joined(rings)] for rings in regions], inside.shape), inside)


def components(inside: np.ndarray) -> int:
    """Regions that touch by sides, counted by flooding."""
    left, count = {tuple(p) for p in np.argwhere(inside)}, 0
    while left:
        count += 1
        waiting = [left.pop()]
        while waiting:
            y, x = waiting.pop()
            for one in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if one in left:
                    left.remove(one)
                    waiting.append(one)
    return count


@pytest.mark.parametrize("number", range(len(pictures())))
def test_regions_are_apart_and_own_their_holes(number: int) -> None:
    inside = pictures()[number]
    regions = trace(inside)
    assert len(regions) == components(inside)
    for rings in regions:
        alone = fill(rings, inside.shape).area
        assert alone == fill(rings[:1], inside.shape).area - sum(
            fill([hole], inside.shape).area for hole in rings[1:]
        )


def border_distance(inside: np.ndarray) -> np.ndarray:
    """Distance of each pixel's centre from the nearest edge between inside and outside."""
    padded = np.pad(inside, 1)
    spots = []
    for y, x in np.argwhere(padded[:, 1:] != padded[:, :-1]):
        spots += [(x, y - 1 + t) for t in np.linspace(0, 1, 5)]
    for y, x in np.argwhere(padded[1:] != padded[:-1]):
        spots += [(x - 1 + t, y) for t in np.linspace(0, 1, 5)]
    y, x = np.indices(inside.shape) + 0.5
    edges = np.array(spots)
    return np.hypot(x[..., None] - edges[:, 0], y[..., None] - edges[:, 1]).min(-1)


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 2.5])
def test_simplified_within_the_tolerance(tolerance: float) -> None:
    inside = pictures()[0]
    regions = trace(inside)
    simple = [[simplify(ring, tolerance) for ring in rings] for rings in regions]
    corners = [sum(len(r) for rings in some for r in rings) for some in (regions, simple)]
    assert corners[1] < {0.5: 0.8, 1.0: 0.5, 2.5: 0.3}[tolerance] * corners[0]
    mask = np.zeros(inside.shape, bool)
    for rings in simple:
        patch = fill([joined(rings)], inside.shape)
        patch_of(mask, patch)[:] ^= patch.inside
    changed = mask != inside
    assert changed.any() or tolerance < 1
    assert border_distance(inside)[changed].max(initial=0) <= tolerance + 0.02


def test_what_would_vanish_stays() -> None:
    dot = trace(np.ones((1, 1), bool))[0][0]
    assert np.array_equal(simplify(dot, 5), dot)
    bar = trace(np.array([[1, 1, 1, 0], [0, 0, 1, 1]], bool))[0][0]
    assert len(simplify(bar, 9)) == len(bar) == 8
