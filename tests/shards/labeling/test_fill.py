"""Polygons against the rule itself, pixel by pixel, and runs against the tools' own coders."""

import numpy as np
import pytest
from warpseg.shards.labeling.brush import decode_brush, encode_brush
from warpseg.shards.labeling.fill import Patch, box, ellipse, fill, patch_of
from warpseg.shards.labeling.runs import (
    decode_coco,
    decode_runs,
    encode_coco,
    encode_runs,
    runs_to_text,
    text_to_runs,
)


def even_odd(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The rule as it is written: count the edges that a ray from a pixel's centre to the left
    crosses."""
    mask = np.zeros(size, bool)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y, odd = column + 0.5, row + 0.5, False
            for ring in rings:
                for (xa, ya), (xb, yb) in zip(ring, np.roll(ring, -1, 0), strict=True):
                    if (ya <= y) != (yb <= y) and xa + (y - ya) * (xb - xa) / (yb - ya) <= x:
                        odd = not odd
            mask[row, column] = odd
    return mask


def whole(patch: Patch, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, bool)
    patch_of(mask, patch)[:] = patch.inside
    return mask


@pytest.mark.parametrize("seed", range(12))
def test_fill_follows_the_rule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 24)), int(rng.integers(1, 24)))
    rings = [rng.uniform(-6, 30, (int(rng.integers(3, 9)), 2)) for _ in range(seed % 3 + 1)]
    if seed % 2:
        rings = [np.round(ring * 2) / 2 for ring in rings]  # through centres of pixels
    assert np.array_equal(whole(fill(rings, size), size), even_odd(rings, size))


def test_neighbours_share_no_pixel_and_leave_none_out() -> None:
    rng = np.random.default_rng(3)
    inner = np.concatenate(([[0, 7.5]], np.sort(rng.uniform(0, 20, (6, 2)), 0), [[20, 11.5]]))
    above = np.concatenate((inner, [[20, 0], [0, 0]]))
    below = np.concatenate((inner, [[20, 20], [0, 20]]))
    masks = [whole(fill([ring], (20, 20)), (20, 20)) for ring in (above, below)]
    assert (masks[0] ^ masks[1]).all()


def test_what_has_no_inside() -> None:
    assert fill([np.zeros((2, 2))], (4, 4)).area == 0
    assert fill([box(50, 50, 60, 60)], (4, 4)).area == 0
    assert fill([box(-9, -9, -1, -1)], (4, 4)).area == 0
    assert fill([box(-1e7, -1e7, 1e7, 1e7)], (4, 4)).area == 16


def test_an_ellipse_has_the_area_of_one() -> None:
    area = fill([ellipse((50, 40), (30, 20), 30)], (100, 100)).area
    assert area == pytest.approx(np.pi * 600, rel=0.01)
    assert fill([ellipse((50, 40), (30, 20), 90)], (100, 100)).inside.shape == (60, 40)


def test_patches_join_and_are_cut() -> None:
    first, second = Patch(1, 1, np.ones((2, 2), bool)), Patch(-1, 2, np.ones((3, 4), bool))
    both = first.joined(second)
    assert (both.top, both.left, both.area) == (-1, 1, 4 + 12 - 1)
    assert both.within((2, 4)).area == 5


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (7, 3), (40, 61), (5, 200)]
    return [
        *(rng.random(size) < share for size in sizes for share in (0.02, 0.5, 0.97)),
        *(np.full(size, value) for size in sizes for value in (False, True)),
    ]


def test_runs_are_those_of_coco() -> None:
    coder = pytest.importorskip("pycocotools.mask")
    for inside in pictures():
        theirs = coder.encode(np.asfortranarray(inside.astype(np.uint8)))
        ours = encode_coco(inside)
        assert ours == {"size": list(inside.shape), "counts": theirs["counts"].decode()}
        assert np.array_equal(decode_coco(theirs["counts"].decode(), inside.shape), inside)
        plain = text_to_runs(theirs["counts"].decode())
        assert np.array_equal(decode_coco(plain, inside.shape), inside)
        assert runs_to_text(plain) == theirs["counts"].decode()


def test_runs_by_rows_and_brushes_come_back() -> None:
    for inside in pictures():
        assert np.array_equal(decode_runs(encode_runs(inside), inside.shape), inside)
        assert np.array_equal(decode_brush(encode_brush(inside), inside.shape), inside)


def test_a_brush_of_single_values() -> None:
    """Blocks of values as they are, as the tool writes where nothing repeats."""
    bits = f"{8:032b}" + f"{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    bits += "000" + f"{7:03b}" + "".join(f"{v:08b}" for v in (9, 9, 9, 0, 1, 2, 3, 200))
    bits += "0" * (-len(bits) % 8)
    packed = list(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    assert decode_brush(packed, (1, 2)).tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("counts", "said"),
    [([3], "hold 3 pixels"), ([5, -1], "do not fill"), ("1P", "end within"), ("\x00", "no run")],
)
def test_runs_that_are_none(counts: list[int] | str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decode_coco(counts, (2, 2))


def test_brushes_that_are_none() -> None:
    whole = encode_brush(np.ones((3, 5), bool))
    for packed, said in (
        (whole[:-1], "too early"),
        ([300], "no list of bytes"),
        (["a"], "no list of bytes"),
        (encode_brush(np.ones((3, 4), bool)), "48 values"),
    ):
        with pytest.raises(ValueError, match=said):
            decode_brush(packed, (3, 5))
