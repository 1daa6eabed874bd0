"""GTA-Seg's confidence-weighted cross-entropy against its formula in float64."""

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
from warpseg.kernels import cross_entropy, quantile, reweight
from warpseg.kernels.losses.reweight import _reweight


def formula(
    logits: Tensor,
    label: Tensor,
    confidence: Tensor,
    stride: int,
    threshold: float,
    smoothing: float,
    official: bool,
) -> Tensor:
    """Weights (c + tau) where c > gamma, over their sum; official: plus tau for each dropped."""
    z = bilinear(logits, (label.shape[1], label.shape[2]), stride)
    label, confidence = label.long().cpu(), confidence.double().cpu()
    kept = label != IGNORE
    each = -z.log_softmax(1).gather(1, torch.where(kept, label, 0)[:, None])[:, 0]
    above = kept & (confidence > threshold)
    weight = (confidence + smoothing) * above
    total = weight.sum() + smoothing * (kept & ~above).sum() * official
    return (weight * each).sum() / total


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", FEW_SHAPES, ids=str)
def test_equals_the_formula(shape: tuple, path: str) -> None:
    batch, classes, coarse, size, stride = shape
    label = draw_labels(batch, *size, classes=classes, ignored=0.1)
    confidence = draw(batch, *size, seed=1).sigmoid()
    label[0, 0, 0], confidence[0, 0, 0] = 1, 0.9
    threshold = torch.tensor(0.25, device=label.device)
    check_loss(
        lambda leaf: reweight(leaf, label, confidence, threshold=threshold),
        lambda leaf: formula(leaf, label, confidence, stride, 0.25, 1.0, False),
        draw(batch, classes, *coarse),
        path,
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_official_normalizer_and_smoothing(dtype: torch.dtype, path: str) -> None:
    label = draw_labels(2, 2, 5, classes=4)
    confidence = draw(2, 2, 5, seed=1).sigmoid().to(dtype)
    check_loss(
        lambda leaf: reweight(
            leaf, label, confidence, threshold=0.5, normalizer="all", smoothing=0.5
        ),
        lambda leaf: formula(leaf, label, confidence, 2, 0.5, 0.5, True),
        draw(2, 4, 1, 3),
        path,
    )


@pytest.mark.parametrize("path", PATHS)
def test_the_quantile_drops_its_share(path: str) -> None:
    """A fifth is dropped, the threshold itself included; equal confidences weigh alike."""
    logits = draw(1, 3, 1, 5)
    label = draw_labels(1, 4, 20, classes=3, ignored=0)
    confidence = torch.randperm(80, device=logits.device).view(1, 4, 20) / 80
    with running(path):
        threshold = quantile(confidence, 0.2)
        whole = reweight(logits, label, torch.ones_like(confidence), threshold=threshold)
        half = reweight(
            logits,
            label,
            torch.where(confidence > threshold, 0.5, 0.0),
            threshold=threshold,
        )
        dropped = torch.where(confidence > threshold, label, IGNORE)
        assert (dropped == IGNORE).sum() == 16
        assert_close(whole, cross_entropy(logits, label))
        assert_close(half, cross_entropy(logits, dropped))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("normalizer", ["kept", "all", "tensor"])
def test_all_dropped_or_ignored_is_zero(normalizer: str, path: str) -> None:
    logits, label = draw(1, 3, 1, 2).sign() * 80, draw_labels(1, 2, 4, classes=3)
    confidence = torch.full((1, 2, 4), 0.5, device=logits.device)
    given = torch.zeros((), device=logits.device) if normalizer == "tensor" else normalizer
    for some in (label, label | IGNORE):
        with running(path):
            loss, gradient = gradient_of(
                lambda leaf, some=some: reweight(
                    leaf, some, confidence, threshold=0.5, normalizer=given
                ),
                logits,
            )
        assert loss == 0
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_what_every_operation_promises() -> None:
    label, confidence = draw_labels(1, 2, 6, classes=5), draw(1, 2, 6).sigmoid()
    check_operation(lambda leaf: reweight(leaf, label, confidence, threshold=0.2), draw(1, 5, 1, 3))


def test_opcheck() -> None:
    logits, label = draw(1, 3, 1, 2).requires_grad_(), draw_labels(1, 2, 4, classes=3)
    threshold = torch.tensor(0.2, device=logits.device)
    check_registration(_reweight, logits, label, draw(1, 2, 4).sigmoid(), threshold, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": "none"}, "kept, all"),
        ({"threshold": torch.ones(2)}, "0-d"),
        ({"confidence": torch.zeros(1, 2, 4, dtype=torch.uint8)}, "floating point"),
    ],
)
def test_errors(change: dict, message: str) -> None:
    arguments = {
        "logits": torch.zeros(1, 3, 1, 2),
        "label": torch.zeros(1, 2, 4, dtype=torch.uint8),
        "confidence": torch.zeros(1, 2, 4),
        "threshold": 0.1,
    }
    with pytest.raises(ValueError, match=message):
        reweight(**arguments | change)
