"""Losses on coarse maps, stride 8 and 16 and odd sizes, bfloat16, against the same in float64."""

import pytest
import torch
from support import assert_close, draw, draw_labels, gradient_of, running
from warpseg.kernels import (
    consistency_kl,
    cross_entropy,
    dice,
    dynamic_ce,
    focal,
    reweight,
    self_correction,
)

# Stride, pixels, classes: few columns and many rows, one column, more than a strip of 31.
SHAPES = ((16, (33, 17), 5), (8, (15, 9), 27), (8, (17, 129), 2))
SHORT = (8, (17, 9), 3)


def made(shape, dtype):
    stride, (height, width), classes = shape
    coarse = -(-height // stride), -(-width // stride)
    logits = draw(2, classes, *coarse, dtype=dtype)
    return logits, draw_labels(2, height, width, classes=classes)


def hold(loss, logits):
    """Compare value and gradient with the float64 reference's."""
    with running("triton"):
        value, gradient = gradient_of(loss, logits)
    expected, slope = gradient_of(loss, logits.double())
    assert gradient.dtype == logits.dtype
    assert_close(value, expected)
    assert_close(gradient, slope)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cross_entropy(shape):
    logits, mask = made(shape, torch.bfloat16)
    hold(lambda z: cross_entropy(z, mask), logits)


@pytest.mark.parametrize(
    "name", ["ce", "dynamic", "flip", "reweight", "correction", "focal", "dice", "l2"]
)
def test_other_losses(name):
    logits, mask = made(SHORT, torch.bfloat16)
    teacher = draw(*logits.shape, seed=1, dtype=torch.bfloat16)
    confidence = torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)).to(mask.device)

    def loss(z):
        match name:
            case "ce":
                return cross_entropy(z, mask)
            case "dynamic" | "flip":
                return dynamic_ce(z, mask, confidence, form=name)[0]
            case "reweight":
                return reweight(z, mask, confidence, threshold=0.3)
            case "correction":
                return self_correction(z, mask)
            case "focal":
                return focal(z, mask)
            case "l2":
                options = {"divergence": "squared_l2", "threshold": 0.5}
                return consistency_kl(z, teacher.to(z.dtype), size=mask.shape[1:], **options)
        return dice(z, mask)

    hold(loss, logits)
