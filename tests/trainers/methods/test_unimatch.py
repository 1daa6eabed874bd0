"""FixMatch, UniMatch V1 and V2, PrevMatch: whole steps in float64 against their equations, and what
their settings change."""

import copy
from pathlib import Path

import pytest
import torch
from by_hand import assert_same, build_engine, draw_batches, flat, small
from torch import nn
from unimatch_by_hand import CASES, FAMILY, batches_of, engine_of
from warpseg.models.norm import find
from warpseg.trainers.engine.networks import NetworkSettings

FROZEN = NetworkSettings(name="tiny", freeze="backbone")


def state(engine, name="student"):
    return copy.deepcopy(engine.method.networks[name].state_dict())


def run(engine, steps):
    for step in range(steps):
        engine.run_step([batches_of(step)])
    return engine


def moved(engine):
    """Return how often the student's statistics have been updated."""
    return {int(norm.num_batches_tracked) for norm in find(engine.method.student, nn.BatchNorm2d)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_steps_are_those_of_the_equations(case, alpha):
    engine, settings = engine_of(case, alpha=alpha)
    by_hand = CASES[case][0](engine, settings)
    for step in range(4):
        by_hand.step(batches_of(step), step)
        engine.run_step([batches_of(step)])
        assert_same(engine, by_hand.networks)
    # The threshold cuts, and padding counts nowhere.
    assert any(0 < sure < seen for sure, seen in by_hand.lengths)
    assert all(seen < 3 * 32 * 32 for _, seen in by_hand.lengths)


@pytest.mark.parametrize(
    ("case", "changes", "updates"),
    [
        ("fixmatch", {}, 1),
        ("fixmatch student", {}, 2),
        ("fixmatch", {"labeler": "running"}, 1),
        ("unimatch", {}, 2),
        ("unimatch", {"strong_batch_norm": "batch_frozen"}, 1),
        ("unimatch", {"labeler": "running"}, 2),
        ("unimatch-v2", {}, 2),
        ("unimatch-v2", {"strong_batch_norm": "batch_frozen"}, 1),
        ("prevmatch", {}, 2),
    ],
)
def test_statistics_move_with_the_passes(case, changes, updates):
    assert moved(run(engine_of(case, **changes)[0], 1)) == {updates}


@pytest.mark.parametrize("case", ["fixmatch", "unimatch-v2"])
def test_the_teacher_is_the_student_after_the_first_step_and_an_average_later(case):
    engine, _ = engine_of(case)
    run(engine, 1)
    student, teacher = state(engine), state(engine, "teacher")
    assert all(torch.equal(student[name], teacher[name]) for name in student)
    run(engine, 1)
    assert not torch.equal(flat(engine.method.networks["teacher"]), flat(engine.method.student))
    assert engine.method.evaluated == "teacher"
    assert engine.method.also_evaluated == ("student",)


@pytest.mark.parametrize("case", CASES)
def test_a_frozen_backbone_keeps_its_bits(case):
    engine, _ = engine_of(case, network=FROZEN)
    before = state(engine)
    after = state(run(engine, 2))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith("backbone.") for name in changed)


def test_frozen_statistics_hold_whatever_the_policy_of_strong_views():
    engine, _ = engine_of("unimatch-v2", network=FROZEN, strong_batch_norm="batch_frozen")
    before = state(engine)
    after = state(run(engine, 1))
    assert all(
        torch.equal(before[name], after[name]) for name in before if name.startswith("backbone.")
    )


def test_the_gradient_of_dropped_features_reaches_the_encoder():
    """With no labels and no strong view, what teaches is L_fp alone."""
    engine, _ = engine_of("unimatch", threshold=0.0)
    batches = batches_of(0)
    batches["labeled"].mask.fill_(255)
    terms = engine.method.weak(batches, 0)
    terms["loss"].backward()
    torch.testing.assert_close(terms["loss"], terms["features"] / 4)
    assert engine.method.student.backbone.stem[0].weight.grad.abs().sum() > 0


def test_the_weights_of_the_losses():
    """A half, an eighth for each strong view, a quarter for dropped features."""
    engine, _ = engine_of("unimatch", threshold=0.0)
    batches = batches_of(0)
    weak, strong = (stage(batches, 0) for stage in (engine.method.weak, engine.method.strong))
    torch.testing.assert_close(weak["loss"], weak["labeled"] / 2 + weak["features"] / 4)
    torch.testing.assert_close(strong["loss"], 2 * strong["strong"] / 8)


def test_without_batch_norms_fixmatch_runs_in_two_stages():
    """The same gradient as one pass over both, and the peak of the larger one."""
    settings = small(f"fixmatch-{FAMILY}", threshold=0.3)
    names = [stage.name for stage in build_engine(settings).method.stages]
    assert names == ["joint"]
    engines = [build_engine(settings) for _ in range(2)]
    for engine in engines:
        for network in engine.method.networks.values():
            for parent in network.modules():
                for name, child in parent.named_children():
                    if isinstance(child, nn.BatchNorm2d):
                        setattr(parent, name, nn.Identity())
    joint, apart = (engine.method for engine in engines)
    one = joint.joint(one_draw(), 0)["loss"]
    two = one_draw()
    torch.manual_seed(3)
    parts = [apart.labeled(two, 0)["loss"], apart.strong(two, 0)["loss"]]
    torch.testing.assert_close(one, parts[0] + parts[1], rtol=1e-12, atol=0)
    one.backward()
    parts[0].backward()
    parts[1].backward()
    for ours, theirs in zip(joint.student.parameters(), apart.student.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def one_draw():
    batches = draw_batches(0)
    torch.manual_seed(3)
    return batches


def test_prevmatch_without_snapshots_is_unimatch_bit_for_bit():
    """Eight steps with no snapshot yet."""
    both = [
        run(engine_of("unimatch")[0], 4),
        run(engine_of("prevmatch", epoch_steps=100, threshold=0.4)[0], 4),
    ]
    first, second = (state(engine) for engine in both)
    assert all(torch.equal(first[name], second[name]) for name in first)
    with_past = state(run(engine_of("prevmatch", threshold=0.4)[0], 4))
    assert not all(torch.equal(first[name], with_past[name]) for name in first)


def test_trust_is_a_triangle_over_the_epochs():
    engine, _ = engine_of("prevmatch", epoch_steps=2, num_steps=16, snapshot_epochs=1)
    trust = [engine.method.trust(step) for step in range(16)]
    assert trust[0] == trust[1] == 0
    assert trust[8] == trust[9] == 1
    assert trust[2:8] == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert trust[10:] == [0.75, 0.75, 0.5, 0.5, 0.25, 0.25]


def test_the_oldest_snapshot_leaves():
    settings = small(
        f"prevmatch-{FAMILY}", max_snapshots=8, epoch_steps=1, snapshot_epochs=1, num_steps=40
    )
    method = build_engine(settings).method
    parameter = next(method.student.parameters())
    for step in range(11):
        with torch.no_grad():
            parameter.fill_(float(step))
        method.keep_snapshot(step)
        assert method.snapshots_at(step + 1) == min(step + 1, 8)
    kept = sorted(int(next(net.parameters()).flatten()[0]) for net in method.snapshots)
    assert kept == list(range(3, 11))


def test_snapshots_are_kept_at_the_end_of_every_nth_epoch():
    settings = small(f"prevmatch-{FAMILY}", epoch_steps=2, snapshot_epochs=2, max_snapshots=8)
    method = build_engine(settings).method
    assert [method.snapshots_at(step) for step in (0, 3, 4, 7, 8, 31, 32, 39)] == [
        *(0, 0, 1, 1, 2, 7, 8, 8)
    ]
    before = flat(method.snapshots[0])
    with torch.no_grad():
        next(method.student.parameters()).add_(1)
    for step in range(3):
        method.keep_snapshot(step)
    assert torch.equal(flat(method.snapshots[0]), before)
    method.keep_snapshot(3)
    assert torch.equal(flat(method.snapshots[0]), flat(method.student))


def test_snapshots_are_drawn_anew_at_every_step():
    settings = small(
        f"prevmatch-{FAMILY}", epoch_steps=1, snapshot_epochs=1, max_snapshots=4, num_steps=40
    )
    method = build_engine(settings).method
    asked = []
    for number, network in enumerate(method.snapshots):
        network.register_forward_hook(lambda *_, number=number: asked[-1].append(number))
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for step in range(4, 34):
        asked.append([])
        method.ask_snapshots(image, step)
    assert {len(chosen) for chosen in asked} == {1, 2, 3}
    assert all(len(set(chosen)) == len(chosen) for chosen in asked)
    assert {number for chosen in asked for number in chosen} == {0, 1, 2, 3}
    # Equal networks agree, whatever their weights in the mean: these add up to 1.
    expected = method.snapshots[0](image)
    torch.testing.assert_close(method.ask_snapshots(image, 20), expected)


def test_no_validation_mask_is_needed_for_snapshots():
    """The choice is a function of the step: the method never sees a score."""
    source = Path(__import__("warpseg").__path__[0], "trainers/methods/prevmatch.py").read_text()
    assert "scoring" not in source
    assert "evaluate" not in source.replace("evaluated", "")


@pytest.mark.parametrize(
    ("case", "changes", "told"),
    [
        ("fixmatch", {"ema_decay": 1.5}, "--ema-decay must lie in"),
        ("unimatch", {"ema_decay": -1.0}, "--ema-decay must lie in"),
        ("unimatch-v2", {"ema_decay": 2.0}, "--ema-decay must lie in"),
        ("unimatch", {"feature_dropout": 1.0}, "--feature-dropout must lie in"),
        ("prevmatch", {"feature_dropout": -0.5}, "--feature-dropout must lie in"),
        ("prevmatch", {"epoch_steps": 0}, "--epoch-steps must be at least 1; got 0"),
        ("prevmatch", {"previous_threshold": -1.0}, "--previous-threshold must be >= 0"),
    ],
)
def test_wrong_settings(case, changes, told):
    with pytest.raises(ValueError, match=told):
        engine_of(case, **changes)


@pytest.mark.parametrize("freeze", ["none", "backbone"])
def test_a_transformer_under_dpt(freeze):
    """Four levels of one width have one mask; all that learns has a gradient; two stages."""
    network = NetworkSettings(name="dpt-timm:vit_tiny_patch16_224", freeze=freeze)
    shared = {"network": network, "threshold": 0.0}
    fixmatch = build_engine(small(f"fixmatch-{FAMILY}", **shared))
    assert [stage.name for stage in fixmatch.method.stages] == ["labeled", "strong"]
    engine = build_engine(small(f"unimatch-v2-{FAMILY}", **shared))
    levels, student = [], engine.method.student
    complementary = engine.method.change

    def watched(features):
        changed = complementary(features)
        levels.append([(new / old)[:, :, 0, 0] for new, old in zip(changed, features, strict=True)])
        return changed

    engine.method.change = watched
    before = state(engine)
    run(engine, 1)
    (masks,) = levels
    assert len(masks) == 4
    for mask in masks:
        torch.testing.assert_close(mask, masks[0])
        torch.testing.assert_close(sum(mask.chunk(2)), torch.full_like(mask[:3], 2))
    moved = {name for name, value in state(engine).items() if not torch.equal(value, before[name])}
    learning = {name for name, p in student.named_parameters() if p.requires_grad}
    assert moved == learning
    assert any(name.startswith("backbone.") for name in learning) == (freeze == "none")
