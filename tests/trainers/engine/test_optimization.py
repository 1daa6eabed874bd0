"""Schedules and optimizers against the formulas of the papers."""

import copy
import math
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from torch import nn
from warpseg.trainers.engine.optimization import (
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


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"warmup_steps": -3}, "--schedule.warmup-steps must be >= 0; got -3"),
        ({"drops": (0.3, 1.5)}, "--schedule.drops must lie between 0 and 1"),
    ],
)
def test_a_schedule_of_no_run_is_refused(values, said):
    with pytest.raises(ValueError, match=said):
        ScheduleSettings(**values)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("implementation", ["torch", "fused", "foreach"])
def test_implementations_make_the_same_step(name, implementation):
    torch.manual_seed(0)
    network = TwoParts()
    expected = copy.deepcopy(network)
    settings = {"name": name, "lr": 0.1, "weight_decay": 0.1}
    for ours, way in ((network, implementation), (expected, "auto")):
        optimizer = build_optimizer([ours], OptimizerSettings(implementation=way, **settings))
        for number in range(3):
            for parameter in ours.parameters():
                parameter.grad = torch.full_like(parameter, 1.0 + number)
            optimizer.step()
    flags = {key: optimizer.param_groups[0][key] for key in ("fused", "foreach")}
    assert flags == {"fused": True, "foreach": None}
    torch.testing.assert_close(network.state_dict(), expected.state_dict())


def fake_apex(monkeypatch, **contents):
    """Put a package `apex` in place, with or without NVIDIA's optimizers."""
    apex = ModuleType("apex")
    apex.__path__, apex.__spec__ = [], ModuleSpec("apex", None, is_package=True)
    monkeypatch.setitem(sys.modules, "apex", apex)
    if contents:
        optimizers = ModuleType("apex.optimizers")
        vars(optimizers).update(contents)
        monkeypatch.setitem(sys.modules, "apex.optimizers", optimizers)


class OnGpu(nn.Linear):
    """A layer whose parameters say that they are on a GPU."""

    class Parameter(nn.Parameter):
        is_cuda = True

    def __init__(self):
        super().__init__(2, 1)
        self.weight, self.bias = (self.Parameter(p) for p in (self.weight, self.bias))

    def parameter_groups(self):
        return {"backbone": [self.weight], "classifier": [self.bias]}


def apex_settings(name):
    return OptimizerSettings(name=name, implementation="apex", lr=0.3, backbone_lr=0.1)


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("sgd", "FusedSGD", {"lr": 0.3, "momentum": 0.9, "nesterov": False}),
        ("adam", "FusedAdam", {"lr": 0.3, "betas": (0.9, 0.99), "adam_w_mode": False}),
        ("adamw", "FusedAdam", {"lr": 0.3, "betas": (0.9, 0.99), "adam_w_mode": True}),
    ],
)
def test_apex_is_told_what_the_settings_say(name, kind, told, monkeypatch):
    made = []

    def record(which):
        return lambda groups, **options: made.append((which, groups, options)) or "optimizer"

    fake_apex(monkeypatch, FusedSGD=record("FusedSGD"), FusedAdam=record("FusedAdam"))
    assert build_optimizer([OnGpu()], apex_settings(name)) == "optimizer"
    ((which, groups, options),) = made
    assert (which, options) == (kind, told)
    assert [group["lr"] for group in groups] == [0.3, 0.1]


def test_what_is_wrong_with_apex_is_said(monkeypatch):
    def told():
        with pytest.raises(RuntimeError) as raised:
            build_optimizer([OnGpu()], apex_settings("sgd"))
        return str(raised.value)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert told().startswith("NVIDIA apex is not installed: build NVIDIA's by")
    monkeypatch.undo()
    fake_apex(monkeypatch)
    assert "is not NVIDIA's" in told()
    assert "pip uninstall apex" in told()

    def unbuilt(groups, **options):
        raise RuntimeError("apex.optimizers.FusedSGD requires cuda extensions")

    fake_apex(monkeypatch, FusedSGD=unbuilt, FusedAdam=unbuilt)
    assert "requires cuda extensions): build NVIDIA's by" in told()
    with pytest.raises(RuntimeError, match="apex updates weights on a GPU only"):
        build_optimizer([TwoParts()], apex_settings("sgd"))
