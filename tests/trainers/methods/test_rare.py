"""Means against rare classes: what each adds to a step, for every method."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from by_hand import flat, full
from running import run
from steps import CLASSES, TAUGHT, build_engine, first_batches, taught_batches
from tiny import METHOD_RECIPES, tiny_recipe
from warpseg import IGNORE
from warpseg.trainers.engine.checkpoint import load_checkpoint
from warpseg.trainers.engine.rare import RareSettings
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.methods.shared.class_thresholds import MOMENTUM, ClassThresholds
from warpseg.trainers.methods.shared.losses import label_loss

FOCAL_DICE = RareSettings(focal=2.0, dice=0.5)
THRESHOLDED = {
    "fixmatch": {"threshold": 0.5},
    "unimatch": {"threshold": 0.5},
    "unimatch-v2": {"threshold": 0.5},
    "prevmatch": {"threshold": 0.5},
    "gta": {"drop": 0.5},
    "mkd": {"threshold": 0.5},
    "mt-cutmix": {"threshold": 0.5},
    "consistency": {"threshold": 0.5},
}
"""Methods that hold confidences against a threshold, with what makes them."""


def recipe(name, **changes):
    if name in TAUGHT:
        return tiny_recipe(TAUGHT[name], labels="labels", **changes)
    return tiny_recipe(METHOD_RECIPES[name], **changes)


def stepped(settings, batches, means=None):
    """Return the engine of settings after a step for each of some batches; means: those that its
    class-wise thresholds begin with."""
    engine = build_engine(settings)
    for network in engine.method.networks.values():
        if hasattr(network, "classifier"):  # for labels of several classes, more and less sure
            network.classifier.weight.data.mul_(8)
    if means is not None:
        engine.method.thresholds.mean.copy_(means)
    torch.manual_seed(5)
    for batch in batches:
        engine.run_step([dict(batch)])
    return engine


def parameters(engine):
    networks = engine.method.networks.values()
    return torch.cat([flat(network) for network in networks if [*network.parameters()]])


@pytest.fixture(scope="module")
def drawn(scenes):
    """Return two steps' batches of a method by its short name."""
    kept = {}

    def batches(name):
        if name not in kept:
            kept[name] = taught_batches(2) if name in TAUGHT else first_batches(name, scenes)[1]
        return kept[name]

    return batches


def test_the_loss_of_labels_is_its_formula():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64).requires_grad_()
    mask = torch.randint(3, (2, 32, 32), generator=generator)
    mask[0, :7] = IGNORE
    settings = replace(recipe("supervised"), rare=FOCAL_DICE)
    loss = label_loss(logits, mask, settings, Runtime(device=torch.device("cpu")))
    (slope,) = torch.autograd.grad(loss, logits)

    prob, kept = full(logits).softmax(1), mask != IGNORE
    true = F.one_hot(torch.where(kept, mask, 0), 4).movedim(-1, 1) * kept[:, None]
    own = (prob * true).sum(1)[kept]
    focal = ((1 - own) ** 2 * -own.log()).mean()
    pairs = [((prob * true)[:, c].sum(), (prob * kept[:, None])[:, c].sum()) for c in range(3)]
    scores = [1 - 2 * i / (p + true[:, c].sum()) for c, (i, p) in enumerate(pairs)]
    wanted = focal + 0.5 * torch.stack(scores).mean()
    (wanted_slope,) = torch.autograd.grad(wanted, logits)
    assert torch.allclose(loss, wanted, rtol=1e-12)
    assert torch.allclose(slope, wanted_slope, atol=1e-14)


@pytest.mark.parametrize("name", [*METHOD_RECIPES, *TAUGHT])
def test_every_method_learns_labels_by_focal_and_dice(name, drawn):
    more = {"normalizer": "separate"} if name == "dmt" else {}
    plain, focal, dice = (
        parameters(stepped(recipe(name, rare=rare, **more), drawn(name)))
        for rare in (RareSettings(), RareSettings(focal=2.0), RareSettings(dice=0.5))
    )
    assert plain.isfinite().all()
    assert focal.isfinite().all()
    assert not torch.equal(plain, focal)
    assert not torch.equal(plain, dice)


@pytest.mark.parametrize("name", THRESHOLDED)
def test_a_power_of_nearly_0_is_one_threshold_for_all(name, drawn):
    means = torch.linspace(1, 0.01, CLASSES)
    means = means.flip(0) if name == "gta" else means
    plain, same, other = (
        stepped(
            recipe(name, rare=RareSettings(thresholds=power), **THRESHOLDED[name]),
            drawn(name),
            means if power else None,
        )
        for power in (0.0, 1e-12, 4.0)
    )
    assert torch.allclose(parameters(plain), parameters(same), atol=1e-6)
    assert "thresholds" not in plain.method.networks
    assert not torch.equal(other.method.thresholds.mean, means)
    assert not torch.equal(parameters(plain), parameters(other))


def test_means_are_those_of_the_classes():
    generator = torch.Generator().manual_seed(0)
    thresholds = ClassThresholds(4, 0.5)
    mean = torch.zeros(4)
    for _ in range(3):
        label = torch.randint(3, (2, 5, 6), generator=generator)
        confidence = torch.rand(2, 5, 6, generator=generator)
        counted = torch.rand(2, 5, 6, generator=generator) > 0.3
        thresholds.update(label.masked_fill(~counted, IGNORE), confidence, counted)
        for c in range(3):
            own = confidence[counted & (label == c)].mean()
            mean[c] = MOMENTUM * mean[c] + (1 - MOMENTUM) * own if mean[c] else own
    assert torch.allclose(thresholds.mean, mean, atol=1e-5)
    ratio = torch.tensor([*(mean[:3] / mean.max()) ** 0.5, 1.0])
    assert torch.allclose(thresholds.ratio, ratio, atol=1e-5)
    label[0, 0, 0] = IGNORE
    relative = thresholds.relative(label, confidence)
    assert relative[0, 0, 0] == confidence[0, 0, 0]
    known = label != IGNORE
    assert torch.allclose((confidence / relative)[known], ratio[label[known]], atol=1e-5)


def test_ranks_have_the_means_of_the_joined_batch():
    label, confidence = torch.tensor([[0, 1], [1, 1]]), torch.tensor([[0.5, 0.9], [0.7, 0.2]])
    shares = []
    for row in range(2):
        part = ClassThresholds(2, 1.0, lambda sums: shares.append(sums) or sums)
        part.update(label[row], confidence[row], label[row] >= 0)
    total = shares[0] + shares[1]
    both, joined = ClassThresholds(2, 1.0, lambda sums: total), ClassThresholds(2, 1.0)
    both.update(label[0], confidence[0], label[0] >= 0)
    joined.update(label, confidence, label >= 0)
    assert torch.equal(both.mean, joined.mean)


def test_a_rare_class_is_taught_at_a_lower_confidence():
    thresholds = ClassThresholds(2, 1.0)
    thresholds.mean.copy_(torch.tensor([0.9, 0.6]))
    label, confidence = torch.tensor([0, 0, 1, 1]), torch.tensor([0.85, 0.95, 0.55, 0.65])
    taught = thresholds.relative(label, confidence) >= 0.9
    assert taught.tolist() == [False, True, False, True]


def test_a_resumed_run_has_its_means_and_crops(scenes, tmp_path):
    rare = RareSettings(crops=0.5, thresholds=1.0, dice=0.5)
    changes = {"rare": rare, "checkpoint_every": 1}
    run("fixmatch", scenes, tmp_path / "whole", num_steps=3, **changes)
    part = tmp_path / "part"
    run("fixmatch", scenes, part, num_steps=3, keep_checkpoints=True, **changes)
    first = min((part / "checkpoints").iterdir())
    (part / "checkpoint.pt").write_bytes(first.read_bytes())
    run("fixmatch", scenes, part, resume=True, num_steps=3, keep_checkpoints=True, **changes)
    states = [load_checkpoint(tmp_path / name)["engine"]["networks"] for name in ("whole", "part")]
    means = [state["thresholds"]["mean"] for state in states]
    assert means[0].any()
    assert torch.equal(*means)
    student = [state["student"] for state in states]
    assert all(torch.equal(student[0][key], student[1][key]) for key in student[0])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("supervised", {"rare": RareSettings(thresholds=1.0)}, "this one, as it is set, does not"),
        ("mkd", {"rare": RareSettings(thresholds=1.0), "threshold": None}, "does not: give it one"),
        ("1w-cs", {"rare": RareSettings(thresholds=1.0), "threshold": 0.5}, "does not: give it"),
        ("dmt", {"rare": RareSettings(focal=2.0)}, "say --normalizer separate"),
    ],
)
def test_what_a_method_has_no_place_for_is_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(name, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crops": -0.1}, r"class-centred crops lies in \[0, 1\]"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"focal": -1.0}, "--rare.focal must be 0 or more"),
        ({"dice": -1.0}, "--rare.dice must be 0 or more"),
        ({"thresholds": 5.0}, r"--rare.thresholds must lie in \[0, 4\]"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        RareSettings(**changes)
