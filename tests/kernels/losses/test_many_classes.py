"""Operations at the class counts of COCO, ADE20K and COCO-Stuff, against float64 on small maps."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from support import PATHS, assert_close, bilinear, check_loss, draw, draw_labels, running
from torch import Tensor
from warpseg import IGNORE
from warpseg.kernels import (
    class_sums,
    confusion,
    cross_entropy,
    dice,
    dynamic_ce,
    focal,
    pseudo_label,
    reweight,
    self_correction,
    target_prob,
)

STRIDE, COARSE, SIZE = 2, (2, 3), (4, 6)


def terms(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Full-resolution probabilities, log-probability of the target and the kept pixels."""
    log_prob = bilinear(logits, SIZE, STRIDE).log_softmax(1)
    target = mask.long().cpu()
    kept = target != IGNORE
    picked = log_prob.gather(1, torch.where(kept, target, 0)[:, None])[:, 0]
    return log_prob.exp(), picked, kept


def mean(each: Tensor, kept: Tensor) -> Tensor:
    return (each * kept).sum() / kept.sum()


def dice_formula(logits: Tensor, mask: Tensor) -> Tensor:
    prob, _, kept = terms(logits, mask)
    classes = prob.shape[1]
    true = F.one_hot(torch.where(kept, mask.long().cpu(), 0), classes).movedim(-1, 1)
    true, prob = true * kept[:, None], prob * kept[:, None]
    both, prob, true = (v.sum((0, 2, 3)) for v in (prob * true, prob, true))
    return (1 - 2 * both / (prob + true))[true > 0].mean()


def scl_formula(logits: Tensor, mask: Tensor) -> Tensor:
    prob, picked, kept = terms(logits, mask)
    trust = prob.detach().amax(1)
    reverse = torch.log(torch.tensor(1e-4, dtype=torch.float64))
    return mean(-trust * picked - (1 - trust) * reverse * (1 - picked.exp()), kept)


def weighted_formula(logits: Tensor, mask: Tensor) -> Tensor:
    _, picked, kept = terms(logits, mask)
    return -(1.5 * picked * kept).sum() / (1.5 * kept.sum())


def dynamic_formula(logits: Tensor, mask: Tensor) -> Tensor:
    """Labels that are surer than the network: p^5 where it agrees or not."""
    _, picked, kept = terms(logits, mask)
    return mean(-(picked.detach().exp() ** 5) * picked, kept)


LOSSES: dict[str, tuple[Callable, Callable]] = {
    "cross_entropy": (cross_entropy, lambda z, y: mean(-terms(z, y)[1], terms(z, y)[2])),
    "focal": (
        focal,
        lambda z, y: mean(-((1 - terms(z, y)[1].exp()) ** 2) * terms(z, y)[1], terms(z, y)[2]),
    ),
    "dice": (dice, dice_formula),
    "self_correction": (self_correction, scl_formula),
    "reweight": (
        lambda z, y: reweight(
            z, y, torch.full(y.shape, 0.5, device=z.device), threshold=0.1, normalizer="kept"
        ),
        weighted_formula,
    ),
    "dynamic_ce": (
        lambda z, y: dynamic_ce(z, y, torch.ones(y.shape, device=z.device))[0],
        dynamic_formula,
    ),
}


@pytest.mark.parametrize("classes", [81, 150, 171])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str, path: str, classes: int) -> None:
    loss, formula = LOSSES[name]
    mask = draw_labels(1, *SIZE, classes=classes)
    check_loss(
        lambda leaf: loss(leaf, mask),
        lambda leaf: formula(leaf, mask),
        draw(1, classes, *COARSE, scale=1.0),
        path,
    )


@pytest.mark.parametrize("classes", [81, 150, 171])
@pytest.mark.parametrize("path", PATHS)
def test_labels(path: str, classes: int) -> None:
    logits, mask = draw(1, classes, *COARSE), draw_labels(1, *SIZE, classes=classes)
    prob, picked, kept = terms(logits, mask)
    largest, label = prob.max(1)
    with running(path):
        made = pseudo_label(logits, SIZE)
        own = target_prob(logits, mask)
        table = confusion(logits, mask, classes)
        sums = class_sums(logits, mask)
    assert torch.equal(made.label.long().cpu(), label)
    assert_close(made.confidence, largest)
    assert torch.equal(made.histogram.cpu(), torch.bincount(label.flatten(), minlength=classes))
    assert_close(own, torch.where(kept, picked.exp(), 1))
    wanted = torch.zeros(classes, classes, dtype=torch.int64)
    wanted.index_put_(
        (mask.long().cpu()[kept], label[kept]), torch.ones((), dtype=torch.int64), accumulate=True
    )
    assert torch.equal(table.cpu(), wanted)
    assert_close(sums[1], (prob * kept[:, None]).sum((0, 2, 3)))
