"""Thresholds by counting must be those of sorting, to the bit."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from warpseg.kernels import class_thresholds
from warpseg.trainers.labels.ranking import KEEP_ALL, exact_thresholds, rank_classes

CLASSES = 5
RATIOS = (0.2, 0.4, 0.6, 0.999, 1.0, 1e-4)


def spread(generator, size):
    return generator.uniform(0.2, 1, size)


def ties(generator, size):
    return generator.choice([0.25, 0.5, 0.5 + 2**-25, 1.0], size)


def one_value(generator, size):
    return np.full(size, 0.7)


def saturated(generator, size):
    """Confidences that differ in the last bits alone, many of them exactly 1."""
    return 1 - generator.integers(0, 5, size) * 2.0**-24


def extremes(generator, size):
    return generator.choice([0.0, -0.0, 1e-45, 1e-38, 1.0], size)


SHAPES = (spread, ties, one_value, saturated, extremes)


def draw(shape, seed=0, size=4000, classes=CLASSES):
    """Return labels, of which class 3 is never predicted and class 4 once, and confidences."""
    generator = np.random.default_rng(seed)
    label = generator.choice([0, 0, 0, 1, 2], size).astype(np.uint8)
    label[size // 2] = classes - 1
    return label, shape(generator, size).astype(np.float32)


def in_parts(label, confidence, parts=7):
    def passes():
        return zip(np.array_split(label, parts), np.array_split(confidence, parts), strict=True)

    return passes


def kept(label, confidence, thresholds):
    return confidence >= thresholds[label]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_classes_apart_are_ranked_as_the_kernel_ranks_them(shape, ratio):
    label, confidence = draw(shape)
    found = rank_classes(in_parts(label, confidence), CLASSES, ratio, apart=True)
    wanted = class_thresholds(
        torch.from_numpy(label), torch.from_numpy(confidence), CLASSES, ratio
    ).numpy()
    if ratio == 1:
        assert kept(label, confidence, found).all()
    else:
        assert (found == wanted).all()
    assert (kept(label, confidence, found) == kept(label, confidence, wanted)).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_all_classes_together_keep_the_share_and_ties(shape, ratio):
    label, confidence = draw(shape)
    found = rank_classes(in_parts(label, confidence), CLASSES, ratio, apart=False)
    assert len(set(found.tolist())) == 1
    count = max(1, int(len(label) * ratio))
    wanted = np.sort(confidence)[-count]
    assert ((confidence >= found[0]) == (confidence >= wanted)).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_any_rank_is_found(shape):
    label, confidence = draw(shape, seed=3)
    for share in (0, 0.1, 0.5, 0.93, 1):
        values, sizes = exact_thresholds(
            in_parts(label, confidence), CLASSES, lambda n, share=share: (share * n).astype(int)
        )
        for cls in range(CLASSES):
            ordered = np.sort(confidence[label == cls])
            assert sizes[cls] == len(ordered)
            wanted = (
                ordered[min(int(share * len(ordered)), len(ordered) - 1)] if len(ordered) else 0
            )
            assert values[cls] == wanted


def test_ranks_that_add_up_their_counts_find_the_same():
    label, confidence = draw(spread)
    meeting, tables = Barrier(2), {}

    def work(rank):
        part = slice(rank * 999, 999 + rank * len(label))

        def total(table):
            tables[rank] = table
            meeting.wait(60)
            joined = tables[0] + tables[1]
            meeting.wait(60)
            return joined

        passes = in_parts(label[part], confidence[part])
        return rank_classes(passes, CLASSES, 0.4, apart=True, total=total)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, range(2)))
    whole = rank_classes(in_parts(label, confidence), CLASSES, 0.4, apart=True)
    assert (found[0] == whole).all()
    assert (found[1] == whole).all()


def test_less_than_one_pixel_keeps_all_of_a_class():
    label, confidence = draw(spread)
    found = rank_classes(in_parts(label, confidence), CLASSES, 0.4, apart=True)
    assert found[CLASSES - 1] == KEEP_ALL
    assert found[3] == 0


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.5])
def test_what_is_no_confidence_is_refused(value):
    label, confidence = draw(spread)
    confidence[7] = value
    with pytest.raises(ValueError, match="finite"):
        rank_classes(in_parts(label, confidence), CLASSES, 0.4, apart=True)
