"""The confusion matrix from stride-s logits against counting in float64."""

import pytest
import torch
from support import PATHS, SHAPES, bilinear, check_registration, draw, draw_labels, running
from warpseg import IGNORE
from warpseg.kernels import confusion
from warpseg.kernels.labels.confusion import _confusion


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES[:4] + SHAPES[7:], ids=str)
def test_counts(shape: tuple, path: str) -> None:
    batch, classes, coarse, size, stride = shape
    logits = draw(batch, classes, *coarse)
    mask = draw_labels(batch, *size, classes=classes)
    with running(path):
        counts = confusion(logits, mask, classes)
    expected = torch.zeros(classes, classes, dtype=torch.int64)
    predicted = bilinear(logits, size, stride).argmax(1)
    for true, guess in zip(mask.flatten().tolist(), predicted.flatten().tolist(), strict=True):
        if true != IGNORE:
            expected[true, guess] += 1
    assert counts.dtype == torch.int64
    assert torch.equal(counts.cpu(), expected)


@pytest.mark.parametrize("path", PATHS)
def test_accumulates_and_skips_what_is_no_class(path: str) -> None:
    logits = torch.zeros(1, 3, 1, 1, device=draw(1).device)
    mask = torch.tensor([[[0, 2, 2, IGNORE, -1, 7]]], device=logits.device)
    out = torch.ones(3, 3, dtype=torch.int64, device=logits.device)
    with running(path):
        assert confusion(logits, mask, 3, out=out) is out
    assert out.tolist() == [[2, 1, 1], [1, 1, 1], [3, 1, 1]]


@pytest.mark.parametrize("path", PATHS)
def test_all_ignored(path: str) -> None:
    mask = torch.full((1, 2, 2), IGNORE, dtype=torch.uint8, device=draw(1).device)
    with running(path):
        assert not confusion(draw(1, 3, 1, 1), mask, 3).any()


def test_opcheck() -> None:
    check_registration(_confusion, draw(1, 3, 1, 2), draw_labels(1, 3, 8, classes=3))


def test_errors() -> None:
    logits, mask = torch.zeros(1, 3, 1, 1), torch.zeros(1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="3 classes; expected 4"):
        confusion(logits, mask, 4)
    with pytest.raises(ValueError, match=r"out must be \(3, 3\) int64"):
        confusion(logits, mask, 3, out=torch.zeros(3, 3))
