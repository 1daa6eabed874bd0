"""The self-correction loss against its formula in float64."""

import math

import pytest
import torch
from support import (
    FEW_SHAPES,
    PATHS,
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
from warpseg.kernels import cross_entropy, self_correction
from warpseg.kernels.losses.self_correction import _self_correction

A = math.log(1e-4)


def formula(
    logits: Tensor,
    label: Tensor,
    stride: int,
    log_zero: float = A,
    weight: float | None = None,
    reversed: bool = False,
    count: int | None = None,
) -> Tensor:
    """w CE + (1 - w) RCE with RCE = -sum_k p_k log y_k over the one-hot label."""
    z = bilinear(logits, (label.shape[1], label.shape[2]), stride)
    p = z.softmax(1)
    label = label.long().cpu()
    kept = label != IGNORE
    one_hot = torch.nn.functional.one_hot(torch.where(kept, label, 0), z.shape[1]).movedim(-1, 1)
    log_y = torch.where(one_hot == 1, 0.0, log_zero)
    ce = -(one_hot * z.log_softmax(1)).sum(1)
    rce = -(p * log_y).sum(1)
    w = p.detach().amax(1)
    if reversed:
        w = torch.where(w > 0.8, 1.0, w)
    if weight is not None:
        w = torch.full_like(w, weight)
    each = (1 - w) * ce + w * rce if reversed else w * ce + (1 - w) * rce
    return (each * kept).sum() / max(int(kept.sum()) if count is None else count, 1)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", FEW_SHAPES, ids=str)
def test_equals_the_formula(shape: tuple, path: str) -> None:
    batch, classes, coarse, size, stride = shape
    label = draw_labels(batch, *size, classes=classes)
    check_loss(
        lambda leaf: self_correction(leaf, label),
        lambda leaf: formula(leaf, label, stride),
        draw(batch, classes, *coarse),
        path,
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "options",
    [
        {"reversed": True},
        {"log_zero": -4.0},
        {"weight": 0.5},
        {"weight": 0.3, "reversed": True},
    ],
    ids=str,
)
def test_options(options: dict, path: str) -> None:
    label = draw_labels(1, 3, 8, classes=4)
    check_loss(
        lambda leaf: self_correction(leaf, label, denominator="all", **options),
        lambda leaf: formula(leaf, label, 4, count=24, **options),
        draw(1, 4, 1, 2),
        path,
    )


@pytest.mark.parametrize("path", PATHS)
def test_weight_1_is_cross_entropy_and_weight_0_is_bounded(path: str) -> None:
    logits, label = draw(1, 3, 1, 2), draw_labels(1, 2, 4, classes=3)
    with running(path):
        loss, gradient = gradient_of(lambda leaf: self_correction(leaf, label, weight=1), logits)
        plain, plain_gradient = gradient_of(lambda leaf: cross_entropy(leaf, label), logits)
        wrong = self_correction(logits * 1e3, 2 - label.clamp(max=2), weight=0)
    assert_close(loss, plain)
    assert_close(gradient, plain_gradient)
    assert 0 <= wrong <= -A


@pytest.mark.parametrize("path", PATHS)
def test_extreme_logits_and_all_ignored(path: str) -> None:
    logits, label = draw(1, 3, 1, 2).sign() * 80, draw_labels(1, 2, 4, classes=3)
    check_loss(
        lambda leaf: self_correction(leaf, label),
        lambda leaf: formula(leaf, label, 2),
        logits,
        path,
    )
    with running(path):
        loss, gradient = gradient_of(lambda leaf: self_correction(leaf, label | IGNORE), logits)
    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("path", PATHS)
def test_images_do_not_mix(path: str) -> None:
    """The official code broadcasts weights of one image over losses of another."""
    logits, label = draw(2, 3, 1, 2), draw_labels(2, 2, 4, classes=3)
    count = torch.ones((), device=logits.device)
    with running(path):
        both = self_correction(logits, label, denominator=count)
        apart = [
            self_correction(logits[n : n + 1], label[n : n + 1], denominator=count)
            for n in range(2)
        ]
    assert_close(both, apart[0] + apart[1])


def test_what_every_operation_promises() -> None:
    label = draw_labels(1, 2, 6, classes=5)
    check_operation(lambda leaf: self_correction(leaf, label), draw(1, 5, 1, 3))


def test_opcheck() -> None:
    logits, label = draw(1, 3, 1, 2).requires_grad_(), draw_labels(1, 2, 4, classes=3)
    check_registration(_self_correction, logits, label, A, None, False)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"log_zero": 0.0}, "must be negative"), ({"weight": 1.5}, r"in \[0, 1\]")],
)
def test_errors(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        self_correction(torch.zeros(1, 3, 1, 2), torch.zeros(1, 2, 4, dtype=torch.uint8), **change)
