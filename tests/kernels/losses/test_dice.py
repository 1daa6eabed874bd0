"""The soft dice loss against its formula in float64."""

import pytest
import torch
import torch.nn.functional as F
from support import (
    DTYPES,
    PATHS,
    SHAPES,
    assert_close,
    bilinear,
    check_loss,
    check_operation,
    check_registration,
    draw,
    draw_labels,
    gradient_of,
    running,
)
from torch import Tensor
from warpseg import IGNORE
from warpseg.kernels import class_sums, dice
from warpseg.kernels.losses.dice import _class_slopes, _class_sums


def sums(logits: Tensor, mask: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Overlap, probability and true pixels of each class."""
    prob = bilinear(logits, (mask.shape[1], mask.shape[2]), stride).softmax(1)
    target = mask.long().cpu()
    kept = (target != IGNORE)[:, None]
    true = F.one_hot(torch.where(kept[:, 0], target, 0), prob.shape[1]).movedim(-1, 1) * kept
    both, prob = (prob * true).sum((0, 2, 3)), (prob * kept).sum((0, 2, 3))
    return both, prob, true.sum((0, 2, 3)).double()


def formula(logits: Tensor, mask: Tensor, stride: int) -> Tensor:
    """1 - 2 I / (P + Y), the mean over the classes with a true pixel."""
    both, prob, true = sums(logits, mask, stride)
    shown = true > 0
    return (1 - 2 * both / (prob + true))[shown].sum() / max(int(shown.sum()), 1)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_formula(shape: tuple, path: str) -> None:
    batch, classes, coarse, size, stride = shape
    mask = draw_labels(batch, *size, classes=classes)
    check_loss(
        lambda leaf: dice(leaf, mask),
        lambda leaf: formula(leaf, mask, stride),
        draw(batch, classes, *coarse),
        path,
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_in_the_logits_dtype(dtype: torch.dtype, path: str) -> None:
    mask = draw_labels(2, 14, 20, classes=6)
    check_loss(
        lambda leaf: dice(leaf, mask),
        lambda leaf: formula(leaf, mask, 4),
        draw(2, 6, 4, 5, dtype=dtype),
        path,
    )


@pytest.mark.parametrize("path", PATHS)
def test_sums_of_each_class(path: str) -> None:
    """More rows and columns of cells than one program has."""
    logits, mask = draw(2, 3, 19, 40), draw_labels(2, 38, 80, classes=3)
    with running(path):
        found = class_sums(logits, mask)
    for row, wanted in zip(found, sums(logits, mask, 2), strict=True):
        assert_close(row, wanted)


@pytest.mark.parametrize("path", PATHS)
def test_all_ignored_and_masked_classes(path: str) -> None:
    logits, mask = draw(1, 3, 2, 2), draw_labels(1, 4, 4, classes=2)
    logits[:, 2] = -torch.inf
    with running(path):
        loss, gradient = gradient_of(lambda leaf: dice(leaf, mask), logits)
        none, nothing = gradient_of(lambda leaf: dice(leaf, mask | IGNORE), logits)
    assert 0 < loss < 1
    assert gradient.isfinite().all()
    assert none == 0
    assert torch.equal(nothing, torch.zeros_like(nothing))


@pytest.mark.parametrize("path", PATHS)
def test_ranks_have_the_gradient_of_the_joined_batch(path: str) -> None:
    logits, mask = draw(4, 3, 2, 3), draw_labels(4, 4, 6, classes=3)
    mask[:2][mask[:2] == 2] = 0
    halves = [(logits[:2], mask[:2]), (logits[2:], mask[2:])]
    with running(path):
        together = torch.stack([class_sums(*half) for half in halves]).mean(0)
        whole, gradient = gradient_of(lambda leaf: dice(leaf, mask), logits)
        parts = [
            gradient_of(lambda leaf, m=m: dice(leaf, m, average=lambda _: together), z)
            for z, m in halves
        ]
    for loss, _ in parts:
        assert_close(loss, whole)
    assert_close(torch.cat([slope for _, slope in parts]) / 2, gradient)


def test_promises() -> None:
    logits, mask = draw(2, 5, 2, 3), draw_labels(2, 8, 12, classes=5)
    check_operation(lambda leaf: dice(leaf, mask), logits)
    check_registration(_class_sums, logits.requires_grad_(), mask)
    check_registration(_class_slopes, logits.detach(), mask, draw(2, 5))
