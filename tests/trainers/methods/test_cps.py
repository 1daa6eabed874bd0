"""CPS (Chen et al. 2021) as settings of MKD, against its formulas in float64."""

import copy
from dataclasses import replace

import pytest
import torch
from by_hand import (
    NUM_STEPS,
    SEED,
    SIZE,
    Sgd,
    assert_same,
    at,
    build_engine,
    draw_batches,
    full,
    losses,
    mean_loss,
    mix,
    paste,
    poly,
    small,
)
from warpseg import IGNORE
from warpseg.kernels import cutmix_boxes
from warpseg.pipelines.settings import StrongSettings

RECIPE = "mkd-synthetic-swiftnet18-tiny"
PLAIN = {
    "teachers": "none",
    "feature_strength": 0.0,
    "strong": StrongSettings(view="none"),
    "count_padding": True,
    "loss_stride": 4,
}


def cps(**changes):
    settings = small(RECIPE, **{**PLAIN, **changes})
    engine = build_engine(settings)
    return engine, copy.deepcopy(engine.method.networks), settings


def batches_of(step):
    """Return batches whose strong view is the weak one."""
    batches = draw_batches(step)
    views = batches["unlabeled"]
    batches["unlabeled"] = replace(views, strong=views.weak)
    return batches


def test_the_documented_command_is_the_two_line_formula():
    """CE(z1, argmax z2) + CE(z2, argmax z1) over labeled and unlabeled images, and both masks."""
    engine, networks, _ = cps(cutmix=False, consistency_on="both", beta=1.5)
    students = [networks["student1"], networks["student2"]]
    sgd = Sgd(*students)
    for step in range(3):
        batches = batches_of(step)
        labeled, weak = batches["labeled"], batches["unlabeled"].weak
        known = at(labeled.mask, 4) != IGNORE
        own = [network(labeled.image) for network in students]
        both = [torch.cat((z, net(weak))) for z, net in zip(own, students, strict=True)]
        label = [z.detach().argmax(1) for z in both]
        for said in label:
            said[:2][~known] = IGNORE
        cross = sum(
            losses(z, y).sum() / (y != IGNORE).sum() for z, y in zip(both, label[::-1], strict=True)
        )
        loss = sum(mean_loss(full(z), labeled.mask) for z in own) + 1.5 * cross
        sgd.step(loss, poly(step))
        engine.run_step([batches_of(step)])
        assert_same(engine, networks)


def test_labels_of_clean_images_are_mixed_like_the_images():
    """CPS with CutMix: no-grad passes in training mode on clean images, then the mixed ones."""
    engine, networks, settings = cps(student_labels="clean", beta=1.0)
    students = [networks["student1"], networks["student2"]]
    sgd = Sgd(*students)
    for step in range(3):
        engine.runtime.seed(SEED, step)
        batches = batches_of(step)
        labeled, weak = batches["labeled"], batches["unlabeled"].weak
        loss = sum(mean_loss(full(net(labeled.image)), labeled.mask) for net in students)
        with torch.no_grad():
            clean = [network(weak) for network in students]
        boxes = cutmix_boxes(3, SIZE, preset="mkd").boxes
        label = [mix(z, z.roll(1, 0), paste(boxes, 4)).argmax(1) for z in clean]
        image = mix(weak, weak.roll(1, 0), paste(boxes))
        said = [network(image) for network in students]
        assert any(not torch.equal(y, z.argmax(1)) for y, z in zip(label, said, strict=True))
        for z, y in zip(said, label[::-1], strict=True):
            loss = loss + losses(z, y).mean()
        sgd.step(loss, poly(step))
        engine.run_step([batches_of(step)])
        assert_same(engine, networks)
    norm = students[0].backbone.stem[1]
    assert int(norm.num_batches_tracked) == 3 * 3
    assert settings.num_steps == NUM_STEPS


@pytest.mark.parametrize("labels", ["mixed", "clean"])
def test_both_networks_are_treated_alike(labels):
    """To swap the networks swaps what becomes of them."""
    engines = [cps(student_labels=labels)[0] for _ in range(2)]
    first, second = (engine.method.networks for engine in engines)
    state = copy.deepcopy(first["student1"].state_dict())
    second["student1"].load_state_dict(first["student2"].state_dict())
    second["student2"].load_state_dict(state)
    for engine in engines:
        engine.run_step([batches_of(0)])
    for one, other in (("student1", "student2"), ("student2", "student1")):
        torch.testing.assert_close(
            first[one].state_dict(), second[other].state_dict(), rtol=1e-12, atol=1e-13
        )
