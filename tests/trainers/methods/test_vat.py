"""VAT with entropy minimisation: its step against the paper's equations, written out in float64."""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.func import functional_call, jacrev
from warpseg.trainers.engine.networks import NetworkSettings
from warpseg.trainers.methods.vat import unit
from warpseg.trainers.recipes.registry import RECIPES

sys.path.insert(0, str(Path(__file__).parents[1]))
from by_hand import (
    SEED,
    Sgd,
    assert_same,
    build_engine,
    count_forwards,
    draw_batches,
    full,
    mean_loss,
    poly,
    shown,
    small,
)

RECIPE = "vat-synthetic-swiftnet18-tiny"


def settings_of(whole, **changes):
    settings = small(RECIPE, unlabeled_batch_size=3, epsilon=0.5, alpha=0.7, beta=0.4, **changes)
    if whole:
        return replace(settings, network=NetworkSettings(name="tiny-classifier"))
    return settings


def batches_of(whole, number):
    batches = draw_batches(number)
    labeled = batches["labeled"]
    if whole:
        batches["labeled"] = replace(labeled, mask=labeled.mask[:, 20:21, :1])
    return batches


class Hand:
    """One step, with the power iteration as it is published or as the limit of small steps."""

    def __init__(self, engine, whole):
        self.engine, self.whole = engine, whole
        self.settings = engine_settings = engine.method.settings
        self.student = copy.deepcopy(engine.method.networks["student"]).train()
        self.networks = {"student": self.student}
        self.sgd = Sgd(self.student)
        self.alpha, self.beta = engine_settings.alpha, engine_settings.beta

    def ask(self, image):
        """Batch statistics, none of them kept; probabilities (N, C, H, W)."""
        buffers = {name: value.clone() for name, value in self.student.named_buffers()}
        logits = functional_call(self.student, buffers, image)
        return (logits if self.whole else full(logits)).softmax(1)

    def mean(self, values):
        return values.mean() if self.whole else (values * shown()).sum() / shown().sum()

    def kl(self, p, q):
        return self.mean((p * (p.log() - q.log())).sum(1))

    def worst(self, image, p):
        self.engine.runtime.seed(SEED, self.engine.step)
        d = torch.randn_like(image)
        d = d / d.flatten(1).norm(dim=1)[:, None, None, None]
        for _ in range(self.settings.power_iterations):
            if self.settings.power == "difference":
                r = (self.settings.xi * d).requires_grad_()
                (d,) = torch.autograd.grad(self.kl(p, self.ask(image + r)), r)
            else:
                d = self.hessian_product(image, d)
            d = d / d.flatten(1).norm(dim=1)[:, None, None, None]
        return d

    def hessian_product(self, image, d):
        """J^T F J d with J the Jacobian of the probabilities' logarithm, F weighting by p."""

        def log_probabilities(x):
            return self.ask(x).log()

        jacobian = jacrev(log_probabilities, chunk_size=64)(image).detach().flatten(4)
        p = self.ask(image).detach()
        weight = (p if self.whole else p * shown()[:, None]).div(
            len(p) if self.whole else shown().sum()
        )
        change = jacobian @ d.flatten()
        return ((weight * change).flatten() @ jacobian.flatten(0, 3)).view_as(image)

    def step(self, batches, number):
        labeled, image = batches["labeled"], batches["unlabeled"].weak
        logits = self.student(labeled.image)
        supervised = mean_loss(logits if self.whole else full(logits), labeled.mask)
        p = self.ask(image)
        entropy = self.mean(-(p * p.log()).sum(1))
        p = p.detach()
        r = self.settings.epsilon * self.worst(image, p)
        adversarial = self.kl(p, self.ask(image + r))
        loss = supervised + self.alpha * adversarial + self.beta * entropy
        self.sgd.step(loss, poly(number))


@pytest.mark.parametrize(
    ("whole", "changes"),
    [
        # A step of 1e-6 would leave too few digits of the difference to compare.
        (True, {"power": "difference", "xi": 1e-3}),
        (True, {"power": "difference", "xi": 1e-3, "power_iterations": 2}),
        (False, {"power": "difference", "xi": 1e-3}),
        (True, {}),
        (True, {"power_iterations": 2}),
    ],
)
def test_a_step_is_the_papers(whole, changes):
    engine = build_engine(settings_of(whole, **changes))
    hand = Hand(engine, whole)
    for number in range(2):
        batches = batches_of(whole, number)
        hand.step(batches, number)
        engine.run_step([batches])
        assert_same(engine, hand.networks)


def test_the_limit_is_what_small_steps_tend_to():
    directions = []
    for changes in ({"power": "difference", "xi": 1e-5}, {}):
        engine = build_engine(settings_of(False, **changes))
        batches = batches_of(False, 0)
        engine.runtime.seed(SEED, 0)
        method, views = engine.method, batches["unlabeled"]
        method.entropy(batches, 0)
        directions.append(method._worst_direction(views, batches["prediction"]))
    torch.testing.assert_close(*directions, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(directions[0].flatten(1).norm(dim=1), torch.ones(3).double())


def test_a_step_makes_the_passes_of_the_paper():
    engine = build_engine(settings_of(False))
    counts = count_forwards(engine.method.networks)
    engine.run_step([draw_batches(0)])
    # Labeled, clean, the power iteration, adversarial.
    assert counts == {"student": 4}


def test_unlabeled_passes_keep_no_statistics():
    engine = build_engine(settings_of(False))
    engine.run_step([draw_batches(0)])
    tracked = engine.method.networks["student"].state_dict()
    counts = [int(v) for k, v in tracked.items() if k.endswith("num_batches_tracked")]
    assert set(counts) == {1}


def test_the_worst_direction_is_worse_than_a_random_one():
    engine = build_engine(settings_of(False))
    batches = batches_of(False, 0)
    method, views = engine.method, batches["unlabeled"]
    method.entropy(batches, 0)
    p = batches["prediction"]
    engine.runtime.seed(SEED, 0)
    random = unit(torch.randn_like(views.weak))
    engine.runtime.seed(SEED, 0)
    worst = method._worst_direction(views, p)
    with torch.no_grad():
        divergence = [
            method._divergence(method.student(views.weak + 0.5 * d), p, views)
            for d in (random, worst)
        ]
    assert divergence[1] > 3 * divergence[0]


def test_unit_scales_tiny_directions_and_leaves_zero():
    direction = torch.tensor([[3e-30, 4e-30], [0.0, 0.0]])
    torch.testing.assert_close(unit(direction), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xi": 0.0}, "--xi must be above 0"),
        ({"power_iterations": 0}, "--power-iterations must be at least 1"),
        ({"beta": -1.0}, "--beta must be >= 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(RECIPES[RECIPE](), **changes)
