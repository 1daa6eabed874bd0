"""Schedules and optimizers against the formulas of the papers."""

import math

import pytest
import torch
from torch import nn
from warpseg.trainers.optimization import (
    OptimizerSettings,
    ScheduleSettings,
    build_optimizer,
    lr_factor,
)


class TwoParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(2, 2), nn.Linear(2, 1)

    def parameter_groups(self):
        return {
            "backbone": list(self.backbone.parameters()),
            "decoder": [],
            "classifier": list(self.head.parameters()),
        }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", 1.0),
        ("poly", (1 - 0.25) ** 0.9),
        ("cosine", (1 + math.cos(math.pi * 0.25)) / 2),
        ("quarter_cosine", math.cos(math.pi / 8)),
        ("steps", 1.0),
    ],
)
def test_schedules_follow_their_formulas(name, expected):
    schedule = ScheduleSettings(name=name)
    assert lr_factor(schedule, 0, 100) == 1.0
    assert lr_factor(schedule, 25, 100) == pytest.approx(expected)


def test_steps_drop_at_their_fractions():
    factors = [lr_factor(ScheduleSettings(name="steps"), step, 10) for step in range(10)]
    assert factors == pytest.approx([1, 1, 1, 0.2, 0.2, 0.2, 0.04, 0.04, 0.008, 0.008])


def test_per_epoch_holds_the_rate_within_an_epoch():
    schedule = ScheduleSettings(name="quarter_cosine", per_epoch=True)
    factors = [lr_factor(schedule, step, 12, epoch_steps=4) for step in range(12)]
    assert factors == pytest.approx(
        [math.cos(math.pi / 2 * (e / 3)) for e in (0, 1, 2) for _ in range(4)]
    )


def test_warmup_rises_linearly():
    schedule = ScheduleSettings(name="constant", warmup_steps=4)
    assert [lr_factor(schedule, step, 10) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_backbone_has_its_own_rate_and_decay():
    network = TwoParts()
    settings = OptimizerSettings(
        lr=4e-4, backbone_lr=1e-4, weight_decay=1e-4, backbone_weight_decay=2.5e-5
    )
    optimizer = build_optimizer([network], settings)
    by_first = {id(group["params"][0]): group for group in optimizer.param_groups}
    backbone = by_first[id(network.backbone.weight)]
    head = by_first[id(network.head.weight)]
    assert (backbone["lr"], backbone["weight_decay"]) == (1e-4, 2.5e-5)
    assert (head["lr"], head["weight_decay"]) == (4e-4, 1e-4)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_adam_decays_through_the_gradient():
    """Weight decay is L2 inside Adam, as in the one-way paper: with no gradient it moves by lr."""
    network = TwoParts()
    before = network.head.weight.detach().clone()
    optimizer = build_optimizer([network], OptimizerSettings(lr=0.1, weight_decay=0.5))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(
        network.head.weight, before - 0.1 * before.sign(), rtol=1e-4, atol=1e-5
    )


def test_frozen_parameters_are_left_out():
    network = TwoParts()
    network.backbone.requires_grad_(False)
    optimizer = build_optimizer([network], OptimizerSettings(name="sgd"))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def test_a_negative_rate_is_refused_by_its_flag():
    with pytest.raises(ValueError, match=r"--optimizer.backbone-lr must be >= 0; got -1"):
        OptimizerSettings(backbone_lr=-1)
