"""Colours of classes without any: apart for all eyes, and each class's own."""

import numpy as np
import pytest
from warpseg.shards.masks.palette import _VISION, SAFE, distinct_colours, lab, palette_of


def least_distance(colours, vision):
    seen = lab(np.array(colours), vision)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    return apart[~np.eye(len(colours), dtype=bool)].min()


def test_the_first_ten_stay_apart_for_colour_blind_eyes():
    for vision in _VISION:
        assert least_distance(distinct_colours()[:SAFE], vision) > 20


def test_all_colours_differ_and_none_is_black_or_white():
    colours = distinct_colours()
    assert len(set(colours)) == 256
    assert least_distance([*colours, (0, 0, 0), (255, 255, 255)], _VISION[0]) > 10


def test_red_and_green_are_hardly_told_apart_without_one_kind_of_cones():
    """The simulation does what it says: these two are 120 apart for most, not so for others."""
    pair = [(200, 60, 0), (110, 110, 0)]
    assert least_distance(pair, _VISION[0]) > 2 * least_distance(pair, _VISION[2])


@pytest.mark.parametrize("count", [2, 10, 11, 33, 256])
def test_a_class_keeps_its_colour_wherever_it_stands(count):
    names = [f"class {number}" for number in range(count)]
    colours = dict(zip(names, palette_of(names), strict=True))
    assert len(set(colours.values())) == count
    assert palette_of(names[::-1]) == tuple(colours[name] for name in names[::-1])


def test_more_classes_than_colours_are_refused():
    with pytest.raises(ValueError, match="256 colours for 257 classes"):
        palette_of([str(number) for number in range(257)])
