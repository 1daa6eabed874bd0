"""The focal loss against its formula in float64."""

import pytest
import torch
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
from warpseg.kernels import cross_entropy, focal
from warpseg.kernels.losses.focal import _focal


def formula(
    logits: Tensor,
    mask: Tensor,
    stride: int,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    count: float | None = None,
) -> Tensor:
    """-w (1 - p)^gamma log p, the mean over kept pixels."""
    z = bilinear(logits, (mask.shape[1], mask.shape[2]), stride)
    target = mask.long().cpu()
    kept = target != IGNORE
    safe = torch.where(kept, target, 0)
    log_p = z.log_softmax(1).gather(1, safe[:, None])[:, 0]
    w = torch.ones_like(log_p) if weight is None else weight.double().cpu()[safe]
    each = -w * (1 - log_p.exp()) ** gamma * log_p
    return (each * kept).sum() / max(float(kept.sum()) if count is None else count, 1)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_formula(shape: tuple, path: str) -> None:
    batch, classes, coarse, size, stride = shape
    mask = draw_labels(batch, *size, classes=classes)
    check_loss(
        lambda leaf: focal(leaf, mask),
        lambda leaf: formula(leaf, mask, stride),
        draw(batch, classes, *coarse),
        path,
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_powers_weights_and_dtypes(gamma: float, dtype: torch.dtype, path: str) -> None:
    mask, weight = draw_labels(2, 6, 8, classes=4), draw(4, seed=1).abs()
    check_loss(
        lambda leaf: focal(leaf, mask, gamma=gamma, weight=weight, denominator="all"),
        lambda leaf: formula(leaf, mask, 4, gamma, weight, count=96),
        draw(2, 4, 2, 2, dtype=dtype),
        path,
    )


@pytest.mark.parametrize("path", PATHS)
def test_power_0_is_cross_entropy(path: str) -> None:
    logits, mask = draw(1, 3, 1, 2), draw_labels(1, 2, 4, classes=3)
    with running(path):
        loss, gradient = gradient_of(lambda leaf: focal(leaf, mask, gamma=0), logits)
        plain, plain_gradient = gradient_of(lambda leaf: cross_entropy(leaf, mask), logits)
    assert_close(loss, plain)
    assert_close(gradient, plain_gradient)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_sure_and_wrong_pixels_have_finite_gradients(gamma: float, path: str) -> None:
    mask = draw_labels(1, 2, 4, classes=3)
    if gamma > 1:  # below, the formula's own slope is infinite at p = 1
        check_loss(
            lambda leaf: focal(leaf, mask, gamma=gamma),
            lambda leaf: formula(leaf, mask, 2, gamma),
            draw(1, 3, 1, 2).sign() * 80 + draw(1, 3, 1, 2, seed=1),
            path,
        )
    for shift in (1e-2, 1e-4, 1e-7, 0.0):
        sure = torch.tensor([40.0, 40 - 17 * (1 - shift)]).view(1, 2, 1, 1).to(mask.device)
        with running(path):
            loss, gradient = gradient_of(
                lambda leaf: focal(leaf, mask[:, :1, :1] * 0, gamma=gamma), sure
            )
        assert loss.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("path", PATHS)
def test_masked_classes_and_all_ignored(path: str) -> None:
    logits, mask = draw(1, 3, 2, 2), draw_labels(1, 4, 4, classes=2)
    logits[:, 2] = -torch.inf
    with running(path):
        loss, gradient = gradient_of(lambda leaf: focal(leaf, mask), logits)
        wrong, slope = gradient_of(lambda leaf: focal(leaf, mask * 0 + 2), logits)
        none, nothing = gradient_of(lambda leaf: focal(leaf, mask | IGNORE), logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert wrong == torch.inf
    assert not slope.isnan().any()
    assert none == 0
    assert torch.equal(nothing, torch.zeros_like(nothing))


def test_promises() -> None:
    logits, mask = draw(2, 5, 2, 3), draw_labels(2, 8, 12, classes=5)
    check_operation(lambda leaf: focal(leaf, mask), logits)
    check_registration(_focal, logits.requires_grad_(), mask, 2.0, None, IGNORE)


def test_errors() -> None:
    logits, mask = draw(1, 3, 1, 2), draw_labels(1, 2, 4, classes=3)
    with pytest.raises(ValueError, match="gamma must be 0 or more, below 100; got -1"):
        focal(logits, mask, gamma=-1)
    with pytest.raises(ValueError, match=r"weight must be \(3,\); got \(2,\)"):
        focal(logits, mask, weight=torch.ones(2))
