"""The dynamic cross-entropy of DMT and its ablations against their formulas in float64."""

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
from warpseg.kernels import cross_entropy, dynamic_ce, dynamic_weights
from warpseg.kernels.losses.dynamic_ce import FORMS, _dynamic_ce

GAMMA1, GAMMA2, THRESHOLD = 2.0, 3.5, 0.5


def formula(
    logits: Tensor, label: Tensor, confidence: Tensor, labeled: Tensor, stride: int, form: str
) -> Tensor:
    """Eq. 6 and 7 pixel by pixel, with the paper's names."""
    z = bilinear(logits, (label.shape[1], label.shape[2]), stride)
    prob = z.softmax(1)
    loss, count = z.sum() * 0, 0
    for n, y, x in (label != IGNORE).nonzero().tolist():
        y_a, c_a = int(label[n, y, x]), float(confidence[n, y, x])
        p = prob[n, :, y, x]
        q = p.detach()
        y_b, c_b = int(q.argmax()), float(q.max())
        p_b = float(q[y_a])
        target, keep = y_a, True
        if bool(labeled[n]) or form == "plain":
            weight = 1.0
        elif form == "online":
            target, weight, keep = y_b, 1.0, c_b >= THRESHOLD
        elif y_a == y_b or form == "naive":
            weight = p_b**GAMMA1
        elif c_a >= c_b:
            weight = p_b**GAMMA2
        elif form == "flip":
            target, weight = y_b, (1 - c_a) ** GAMMA2
        else:
            weight = 0.0
        loss = loss - weight * keep * p[target].log()
        count += keep
    return loss / max(count, 1)


def _inputs(shape: tuple) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, classes, coarse, size, _ = shape
    logits = draw(batch, classes, *coarse)
    label = draw_labels(batch, *size, classes=classes)
    confidence = draw(batch, *size, seed=1).sigmoid()
    labeled = torch.tensor([n % 2 == 1 for n in range(batch)], device=logits.device)
    return logits, label, confidence, labeled


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, path: str) -> None:
    shape = FEW_SHAPES[0]
    logits, label, confidence, labeled = _inputs(shape)
    check_loss(
        lambda leaf: dynamic_ce(
            leaf,
            label,
            confidence,
            labeled=labeled,
            gamma1=GAMMA1,
            gamma2=GAMMA2,
            threshold=THRESHOLD,
            form=form,
        )[0],
        lambda leaf: formula(leaf, label, confidence, labeled, shape[-1], form),
        logits,
        path,
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", FEW_SHAPES[1:], ids=str)
def test_shapes(shape: tuple, path: str) -> None:
    logits, label, confidence, labeled = _inputs(shape)
    check_loss(
        lambda leaf: dynamic_ce(leaf, label, confidence, gamma1=GAMMA1, gamma2=GAMMA2)[0],
        lambda leaf: formula(leaf, label, confidence, labeled * False, shape[-1], "dynamic"),
        logits,
        path,
    )


@pytest.mark.parametrize("path", PATHS)
def test_the_three_cases_and_a_tie_of_confidence(path: str) -> None:
    # Three pixels of two equal logits: prediction 0 at confidence .5, against other confidences.
    logits = torch.zeros(1, 2, 1, 4, device=draw(1).device)
    label = torch.tensor([[[0, 1, 1, 1]]], dtype=torch.uint8, device=logits.device)
    confidence = torch.tensor([[[0.1, 0.5, 0.499, IGNORE]]], device=logits.device)
    label[..., 3] = IGNORE
    with running(path):
        loss, cases = dynamic_ce(logits, label, confidence, gamma1=1.0, gamma2=2.0)
    assert [case.item() for case in cases] == [1, 1, 1]
    expected = torch.tensor(2.0).log() * (0.5 + 0.25) / 3
    assert_close(loss, expected)
    weight, counted = dynamic_weights(logits, label, confidence, gamma1=1.0, gamma2=2.0)
    assert_close(weight, torch.tensor([[[0.5, 0.25, 0.0, 0.0]]], device=logits.device))
    assert [case.item() for case in counted] == [1, 1, 1]
    given = torch.ones(1, dtype=torch.bool, device=logits.device)
    weight, _ = dynamic_weights(logits, label, confidence, labeled=given)
    assert weight.flatten().tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("path", PATHS)
def test_zero_gammas_are_plain_cross_entropy(path: str) -> None:
    logits, label, confidence, _ = _inputs(FEW_SHAPES[2])
    with running(path):
        loss, gradient = gradient_of(
            lambda leaf: dynamic_ce(leaf, label, confidence, gamma1=0, gamma2=0)[0], logits
        )
        plain, plain_gradient = gradient_of(lambda leaf: cross_entropy(leaf, label), logits)
    assert_close(loss, plain)
    assert_close(gradient, plain_gradient)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("form", ["dynamic", "flip", "online"])
def test_extreme_logits_and_all_ignored(form: str, path: str) -> None:
    logits = draw(1, 3, 1, 2).sign() * 80
    label = draw_labels(1, 2, 4, classes=3)
    confidence = torch.ones(1, 2, 4, device=logits.device)
    with running(path):
        loss, gradient = gradient_of(
            lambda leaf: dynamic_ce(leaf, label, confidence, form=form)[0], logits
        )
        assert loss.isfinite()
        assert gradient.isfinite().all()
        loss, gradient = gradient_of(
            lambda leaf: dynamic_ce(leaf, label | IGNORE, confidence, form=form)[0], logits
        )
    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_what_every_operation_promises() -> None:
    logits, label, confidence, labeled = _inputs((2, 5, (1, 2), (2, 4), 2))
    check_operation(
        lambda leaf: dynamic_ce(leaf, label, confidence, labeled=labeled, gamma1=1.0)[0], logits
    )


def test_opcheck() -> None:
    logits, label, confidence, labeled = _inputs((1, 3, (1, 2), (2, 4), 2))
    arguments = (logits.requires_grad_(), label, confidence, labeled, 1.0, 2.0, 0.9, "dynamic")
    check_registration(_dynamic_ce, *arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "static"}, "form must be one of dynamic, naive"),
        ({"gamma1": -1.0}, "must not be negative"),
        ({"labeled": torch.zeros(3, dtype=torch.bool)}, r"labeled must be \(1,\)"),
        ({"confidence": torch.zeros(1, 2, 3)}, "target's shape"),
        ({"confidence": torch.zeros(1, 2, 4, dtype=torch.uint8)}, "floating point"),
    ],
)
def test_errors(change: dict, message: str) -> None:
    arguments = {
        "logits": torch.zeros(1, 3, 1, 2),
        "pseudo_label": torch.zeros(1, 2, 4, dtype=torch.uint8),
        "confidence": torch.zeros(1, 2, 4),
    }
    with pytest.raises(ValueError, match=message):
        dynamic_ce(**arguments | change)
