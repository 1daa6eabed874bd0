"""Cross-entropy from stride-s logits against its formula in float64."""

import pytest
import torch
from support import (
    DTYPES,
    PATHS,
    SHAPES,
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
from warpseg.kernels import cross_entropy
from warpseg.kernels.losses.cross_entropy import _cross_entropy


def formula(
    logits: Tensor, mask: Tensor, stride: int, weight: Tensor | None, denominator: str
) -> Tensor:
    """Sum over pixels of w_y (log sum exp z - z_y), divided."""
    mask = mask.long().cpu()
    z = bilinear(logits, (mask.shape[1], mask.shape[2]), stride)
    kept = mask != IGNORE
    label = torch.where(kept, mask, 0)
    each = torch.logsumexp(z, 1) - z.gather(1, label[:, None])[:, 0]
    scale = torch.ones(logits.shape[1]) if weight is None else weight.cpu()
    scale = scale.double()[label] * kept
    count = {"kept": kept.sum(), "all": mask.numel(), "weights": scale.sum()}[denominator]
    return (scale * each).sum() / max(float(count), 1e-300)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_formula(shape: tuple, path: str) -> None:
    batch, classes, coarse, size, stride = shape
    logits = draw(batch, classes, *coarse)
    mask = draw_labels(batch, *size, classes=classes)
    mask[0, 0, 0] = 1
    check_loss(
        lambda leaf: cross_entropy(leaf, mask),
        lambda leaf: formula(leaf, mask, stride, None, "kept"),
        logits,
        path,
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("denominator", ["kept", "all", "weights"])
def test_weights_and_denominators(denominator: str, path: str) -> None:
    logits = draw(2, 4, 1, 3)
    mask = draw_labels(2, 3, 12, classes=4, dtype=torch.int64)
    weight = draw(4, seed=1).abs()
    check_loss(
        lambda leaf: cross_entropy(leaf, mask, weight=weight, denominator=denominator),
        lambda leaf: formula(leaf, mask, 4, weight, denominator),
        logits,
        path,
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("contiguous", [False, True], ids=["channels-last", "planes"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_and_memory_formats(dtype: torch.dtype, contiguous: bool, path: str) -> None:
    logits = draw(1, 19, 1, 3, dtype=dtype)
    logits = logits.contiguous() if contiguous else logits
    mask = draw_labels(1, 4, 12, classes=19)
    check_loss(
        lambda leaf: cross_entropy(leaf, mask),
        lambda leaf: formula(leaf, mask, 4, None, "kept"),
        logits,
        path,
    )


@pytest.mark.parametrize("path", PATHS)
def test_extreme_logits(path: str) -> None:
    logits = draw(1, 3, 2, 2).sign() * 80
    mask = draw_labels(1, 8, 8, classes=3)
    check_loss(
        lambda leaf: cross_entropy(leaf, mask),
        lambda leaf: formula(leaf, mask, 4, None, "kept"),
        logits,
        path,
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("denominator", ["kept", "weights", "tensor"])
def test_all_ignored_is_zero(denominator: str, path: str) -> None:
    logits = draw(1, 3, 1, 2)
    mask = torch.full((1, 4, 8), IGNORE, dtype=torch.uint8, device=logits.device)
    given = torch.zeros((), device=logits.device) if denominator == "tensor" else denominator
    with running(path):
        loss, gradient = gradient_of(
            lambda leaf: cross_entropy(leaf, mask, denominator=given), logits
        )
    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("path", PATHS)
def test_ranks_share_a_denominator(path: str) -> None:
    logits = draw(2, 3, 1, 2)
    mask = draw_labels(2, 4, 8, classes=3)
    mask[1, :2] = IGNORE
    count = (mask != IGNORE).sum()
    with running(path):
        whole, gradient = gradient_of(lambda leaf: cross_entropy(leaf, mask), logits)
        parts = [
            gradient_of(
                lambda leaf, i=i: cross_entropy(leaf, mask[i : i + 1], denominator=count),
                logits[i : i + 1],
            )
            for i in range(2)
        ]
    torch.testing.assert_close(parts[0][0] + parts[1][0], whole)
    torch.testing.assert_close(torch.cat([part for _, part in parts]), gradient)


def test_another_ignore_value() -> None:
    logits, mask = draw(1, 3, 1, 1), draw_labels(1, 4, 4, classes=3, ignored=0, dtype=torch.int64)
    for path in PATHS:
        marked = torch.where(mask == 1, -100, mask)
        usual = torch.where(mask == 1, IGNORE, mask)
        with running(path):
            assert cross_entropy(logits, marked, ignore=-100) == cross_entropy(logits, usual)


def test_what_every_operation_promises() -> None:
    mask = draw_labels(1, 4, 12, classes=5)
    check_operation(lambda leaf: cross_entropy(leaf, mask), draw(1, 5, 1, 3))


def test_opcheck() -> None:
    logits = draw(1, 3, 1, 2).requires_grad_()
    mask = draw_labels(1, 3, 8, classes=3)
    check_registration(_cross_entropy, logits, mask, None, IGNORE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"denominator": "some"}, "denominator must be one of kept, all, weights"),
        ({"denominator": torch.ones(2)}, "0-d"),
        ({"weight": torch.ones(2)}, r"weight must be \(3,\)"),
    ],
)
def test_errors(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cross_entropy(torch.zeros(1, 3, 1, 2), torch.zeros(1, 4, 8, dtype=torch.uint8), **change)


@pytest.mark.parametrize(
    ("logits", "mask", "message"),
    [
        (torch.zeros(1, 3, 2), torch.zeros(1, 4, 8, dtype=torch.uint8), "logits must be"),
        (torch.zeros(1, 3, 1, 2), torch.zeros(1, 4, 8), "of integers"),
        (torch.zeros(2, 3, 1, 2), torch.zeros(1, 4, 8, dtype=torch.uint8), "batch sizes differ"),
        (torch.zeros(1, 3, 3, 2), torch.zeros(1, 4, 8, dtype=torch.uint8), "3 x 2 do not fit"),
        (torch.zeros(1, 257, 1, 2), torch.zeros(1, 4, 8, dtype=torch.uint8), "1 to 256 classes"),
    ],
)
def test_shape_errors(logits: Tensor, mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cross_entropy(logits, mask)
