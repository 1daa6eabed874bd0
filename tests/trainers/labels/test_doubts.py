"""Doubts of masks against their definition, and that wrong masks come first."""

import math
import tracemalloc

import numpy as np
import pytest
from warpseg import IGNORE
from warpseg.trainers.labels.doubts import (
    CAP,
    RARE,
    Doubts,
    Opinion,
    block_sums,
    doubt_of,
    find_regions,
    stands_out,
)

CLASSES = 4


def opinion(mask, seed=0, sharpness=6.0, size=(40, 64)):
    """Return what a network says that is mostly right about vertical stripes of four classes."""
    draw = np.random.default_rng(seed)
    truth = np.broadcast_to(np.arange(size[1]) * CLASSES // size[1], size)
    logits = draw.normal(size=(CLASSES, *size)) + sharpness * (
        truth == np.arange(CLASSES)[:, None, None]
    )
    prob = np.exp(logits) / np.exp(logits).sum(0)
    mask = truth.astype(np.uint8) if mask is None else mask
    known = np.where(mask == IGNORE, 0, mask).astype(int)
    given = np.take_along_axis(prob, known[None], 0)[0]
    return Opinion(
        mask,
        prob.argmax(0).astype(np.uint8),
        prob.max(0).astype(np.float32),
        given.astype(np.float32),
    )


def stripes(size=(40, 64)):
    return np.broadcast_to(np.arange(size[1]) * CLASSES // size[1], size).astype(np.uint8).copy()


def test_a_pixel_is_doubted_as_defined():
    made = Opinion(
        np.array([[0, 1, 2, IGNORE]], np.uint8),
        np.array([[0, 3, 3, 3]], np.uint8),
        np.array([[0.9, 0.6, 0.999, 0.9]], np.float32),
        np.array([[0.9, 0.3, 1e-6, 0.05]], np.float32),
    )
    wanted = [0, 0.3 * -math.log(0.3) / CAP, 0.999 - 1e-6, 0]
    assert doubt_of(made)[0] == pytest.approx(wanted, rel=1e-5)


def test_scores_are_those_of_the_definition():
    doubts, shares = Doubts(CLASSES), np.zeros((6, CLASSES, CLASSES))
    for number in range(6):
        mask = stripes()
        if number == 4:
            mask[:12, :20] = 3
        mask[number] = IGNORE
        made = opinion(mask, seed=number, sharpness=3.0)
        doubts.add(made)
        doubt = doubt_of(made)
        for a in range(CLASSES):
            for b in range(CLASSES):
                there = (mask == a) & (made.label == b)
                shares[number, a, b] = doubt[there].sum() / (mask != IGNORE).sum()
    usual = shares.mean(0)
    wanted = (np.maximum(shares - usual, 0) / np.sqrt(usual + RARE)).sum((1, 2))
    ranking = doubts.ranking()
    assert doubts.usual() == pytest.approx(usual, abs=1e-7)
    assert [image.score for image in ranking] == pytest.approx(sorted(wanted)[::-1], rel=1e-4)
    assert ranking[0].number == 4
    assert ranking[0].share == pytest.approx(shares[4].sum(), rel=1e-5)
    assert ranking[0].pair is not None
    assert ranking[0].pair[0] == 3


def test_a_rare_confusion_counts_more_than_a_usual_one():
    """Networks that take class 1 for 2 in every image do not doubt the image where it is a little
    more as they doubt half as many pixels where 0 is taken for 3."""
    doubts = Doubts(CLASSES)
    for number in range(10):
        mask = stripes()
        mask[:20, 32:48] = 1  # the networks say 2
        if number == 3:
            mask[20:30, 32:48] = 1
        if number == 7:
            mask[:5, 48:64] = 0  # the networks say 3
        doubts.add(opinion(mask, seed=number))
    first, second, *_ = doubts.ranking()
    assert (first.number, first.pair) == (7, (0, 3))
    assert second.number == 3


def test_regions_are_found_where_they_are():
    mask = stripes()
    mask[8:16, 50:58] = 0
    mask[30:36, 50:56] = 0
    made = opinion(mask)
    found = find_regions(made, doubt_of(made), (0, 3))
    boxes = sorted((r.top, r.left, r.top + r.height, r.left + r.width) for r in found)
    assert boxes == [(8, 50, 16, 58), (30, 50, 36, 56)]
    shares = {region.top: region.share for region in found}
    assert shares[8] == pytest.approx(doubt_of(made)[8:16, 50:58].sum(), rel=1e-4)
    doubts = Doubts(CLASSES)
    doubts.add(made)
    (image,) = doubts.ranking()
    assert {r.top for r in image.regions} == {8, 30}
    assert image.regions[0].share == pytest.approx(shares[8] / mask.size, rel=1e-4)


def test_thin_lines_are_no_regions():
    large = Opinion(*(np.kron(part, np.ones((8, 8), part.dtype)) for part in opinion(None)))
    thin, thick = large.mask.copy(), large.mask.copy()
    thin[:, 120:121] = 1  # the networks say 0
    thick[:, 110:121] = 1
    for mask, found in ((thin, False), (thick, True)):
        made = large._replace(mask=mask, given=np.where(mask == large.mask, large.given, 1e-4))
        assert bool(find_regions(made, doubt_of(made), (1, 0))) == found


def test_blocks_cover_every_pixel_once():
    values = np.arange(7 * 11, dtype=float).reshape(7, 11)
    sums = block_sums(values, 4)
    assert sums.shape == (2, 3)
    assert sums[1, 2] == values[4:, 8:].sum()
    assert sums.sum() == values.sum()


def test_outliers_are_counted():
    draw = np.random.default_rng(0)
    usual = list(draw.normal(1, 0.1, 200))
    assert stands_out(sorted([*usual, 5.0, 9.0], reverse=True)) == 2
    assert stands_out([]) == 0


def test_memory_does_not_grow_with_pixels():
    """Of 200 images of 40 x 64 pixels much less is kept than a byte a pixel and class."""
    doubts = Doubts(CLASSES)
    made = [opinion(None, seed=seed, sharpness=2.0) for seed in range(4)]
    doubts.add(made[0])
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(200):
        doubts.add(made[number % 4])
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept < 200 * 40 * 64 * CLASSES / 5


def test_images_without_a_labeled_pixel_are_not_doubted():
    doubts = Doubts(CLASSES)
    doubts.add(opinion(np.full((40, 64), IGNORE, np.uint8)))
    (image,) = doubts.ranking()
    assert (image.score, image.pair, image.regions) == (0, None, ())
