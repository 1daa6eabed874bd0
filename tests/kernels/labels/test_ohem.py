"""Hard pixels (OHEM) against sorting, in float64; the probabilities against their formula."""

from itertools import product

import pytest
import torch
from support import (
    DTYPES,
    PATHS,
    SHAPES,
    assert_close,
    bilinear,
    check_registration,
    draw,
    draw_labels,
    running,
)
from warpseg import IGNORE
from warpseg.kernels import cross_entropy, hard_pixels, target_prob
from warpseg.kernels.labels.ohem import _target_prob


def formula(logits, mask, stride):
    """Return p = softmax(z)[y], 1 where ignored, in float64."""
    mask = mask.long().cpu()
    prob = bilinear(logits, (mask.shape[1], mask.shape[2]), stride).softmax(1)
    picked = prob.gather(1, torch.where(mask == IGNORE, 0, mask)[:, None])[:, 0]
    return torch.where(mask == IGNORE, 1.0, picked)


def by_sorting(prob, mask, threshold, least):
    """Return which pixels the published code keeps: it sorts them all."""
    valid = mask != IGNORE
    if int(valid.sum()) < least:
        return valid
    bound = max(threshold, float(prob[valid].sort().values[least - 1]))
    return valid & (prob <= bound)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_probabilities_equal_the_formula(shape, path):
    batch, classes, coarse, size, stride = shape
    logits = draw(batch, classes, *coarse)
    mask = draw_labels(batch, *size, classes=classes)
    with running(path):
        prob = target_prob(logits, mask)
    assert prob.dtype == torch.float32
    assert_close(prob, formula(logits, mask, stride))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_and_memory_formats(dtype, path):
    logits = draw(1, 5, 2, 3, dtype=dtype)
    mask = draw_labels(1, 8, 12, classes=5, dtype=torch.int64)
    for form in (logits, logits.contiguous()):
        with running(path):
            assert_close(target_prob(form, mask), formula(logits, mask, 4))


BOUNDS = list(product([0.0, 0.3, 0.7, 1.0], [1, 20, 60, 87, 10_000]))


@pytest.mark.parametrize(
    ("path", "threshold", "least"),
    # Behind the kernels, which know of no threshold, both paths are one.
    [("triton", *BOUNDS[number]) for number in (0, 1, 2, 3, 4, 6, 12, 18)]
    + [("reference", *bounds) for bounds in BOUNDS],
)
def test_keeps_what_sorting_keeps(path, threshold, least):
    """Bounds by the threshold, by the least number, and too few pixels for either."""
    logits, mask = draw(2, 4, 2, 3), draw_labels(2, 7, 9, classes=4)
    with running(path):
        prob = target_prob(logits, mask)
        hard = hard_pixels(logits, mask, threshold=threshold, least=least)
    kept = by_sorting(prob, mask, threshold, least)
    assert torch.equal(hard, torch.where(kept, mask, IGNORE))
    assert kept.sum() >= min(least, (mask != IGNORE).sum())


@pytest.mark.parametrize("path", PATHS)
def test_pixels_that_equal_the_bound_stay(path):
    """One logit map for all pixels: all have one of three probabilities."""
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 1], logits[:, 2] = 1, 2
    mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
    mask[0, 0], mask[0, 1] = 1, 2
    with running(path):
        for least, classes in ((1, {0}), (8, {0}), (9, {0, 1}), (12, {0, 1}), (13, {0, 1, 2})):
            hard = hard_pixels(logits, mask, threshold=0.0, least=least)
            assert set(hard.unique().tolist()) - {IGNORE} == classes


@pytest.mark.parametrize("path", PATHS)
def test_the_loss_is_the_mean_over_hard_pixels(path):
    logits, mask = draw(2, 4, 3, 3).requires_grad_(), draw_labels(2, 12, 12, classes=4)
    with running(path):
        loss = cross_entropy(logits, hard_pixels(logits, mask, threshold=0.4, least=30))
        loss.backward()
    twin = logits.detach().double().cpu().requires_grad_()
    prob = formula(twin, mask, 4)
    kept = by_sorting(prob.detach(), mask.cpu(), 0.4, 30)
    expected = -prob[kept].log().mean()
    expected.backward()
    assert 0 < kept.sum() < (mask != IGNORE).sum()
    assert_close(loss, expected.detach())
    assert_close(logits.grad, twin.grad)


@pytest.mark.parametrize("path", PATHS)
def test_nothing_labeled_keeps_nothing(path):
    logits, mask = draw(1, 3, 1, 2), torch.full((1, 4, 8), IGNORE, dtype=torch.uint8)
    with running(path):
        assert torch.equal(hard_pixels(logits, mask.to(logits.device)).cpu(), mask)


def test_a_value_that_is_no_class_reaches_the_loss():
    logits, mask = draw(1, 3, 1, 2), torch.zeros(1, 4, 8, dtype=torch.uint8)
    mask[0, 0, 0] = 7
    mask = mask.to(logits.device)
    with running("triton"):
        assert cross_entropy(logits, hard_pixels(logits, mask, least=1)).isnan()


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"threshold": 1.5}, "threshold must lie"), ({"least": 0}, "least be 1 or more")],
)
def test_wrong_numbers(changes, told):
    with pytest.raises(ValueError, match=told):
        hard_pixels(draw(1, 3, 1, 2), draw_labels(1, 4, 8, classes=3), **changes)


def test_registration_and_torch_compile():
    logits, mask = draw(1, 3, 1, 2), draw_labels(1, 4, 8, classes=3)
    with running("triton"):
        check_registration(_target_prob, logits, mask)
        plain = hard_pixels(logits, mask, least=10)
        compiled = torch.compile(
            lambda z, y: hard_pixels(z, y, least=10), fullgraph=True, backend="aot_eager"
        )
        assert torch.equal(compiled(logits, mask), plain)
