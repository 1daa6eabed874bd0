"""DMT's classification: whole steps against the paper written out, and the chain from images to
accuracy."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from by_hand import (
    NUM_STEPS,
    SEED,
    Sgd,
    assert_same,
    average,
    average_buffers,
    build_engine,
    count_forwards,
    poly,
    small,
)
from running import assert_same_state, chain_of, interrupt
from warpseg.pipelines import GeometrySettings, NormalizationSettings, labeled, paired
from warpseg.pipelines.batches import LabeledBatch
from warpseg.pipelines.settings import LoaderSettings, StrongSettings
from warpseg.shards import Dataset
from warpseg.shards.pseudo import open_pseudo_labels, read_pseudo_label
from warpseg.trainers.engine.networks import NetworkSettings
from warpseg.trainers.methods.dmt_chain import draw_mixup, rise
from warpseg.trainers.methods.rounds import LabelPart, TrainPart, check_plan
from warpseg.trainers.recipes.registry import RECIPES
from warpseg.trainers.runs.rounds.run import run_rounds

TINY = "cifar10-wrn28-2-tiny"
CLASSES = 4
NETWORK = NetworkSettings(name="tiny-classifier")
RANDAUGMENT = StrongSettings(view="randaugment")


def settings_of(**changes):
    given = {"labels": "labels", "network": NETWORK, "ema_decay": 0.9, **changes}
    return small(f"dmt-link-{TINY}", **given)


def draw(step):
    """Return 2 labeled and 6 pseudo-labeled images, a confidence of the latter below 1/C."""
    generator = torch.Generator().manual_seed(300 + step)

    def batch(count, **more):
        image = torch.randn(count, 3, 32, 32, dtype=torch.float64, generator=generator)
        mask = torch.randint(CLASSES, (count, 1, 1), generator=generator).to(torch.uint8)
        return LabeledBatch(image=image, mask=mask, keys=tuple(map(str, range(count))), **more)

    confidence = torch.linspace(0.1, 0.9, 6, dtype=torch.float64).view(6, 1, 1)
    return {"labeled": batch(2), "pseudo": batch(6, confidence=confidence)}


def weights(logits, label, c_a, gamma):
    """Eq. 6 for each pseudo-labeled image."""
    result = []
    for prob, y_a, c in zip(logits.softmax(1), label.tolist(), c_a.tolist(), strict=True):
        c_b, y_b = prob.max(0)
        positive = y_b != y_a and c < c_b
        result.append(prob.new_zeros(()) if positive else prob[y_a] ** gamma)
    return torch.stack(result)


@torch.no_grad()
def look(net, image, moves):
    """Return a training pass's logits; put the running statistics back unless it moves them."""
    before = [buffer.clone() for buffer in net.buffers()]
    logits = net(image).flatten(1)
    for buffer, value in zip(net.buffers(), before, strict=True):
        if not moves:
            buffer.copy_(value)
    return logits


@pytest.mark.parametrize("batch_norm", ["batch_frozen", "batch"])
def test_steps_equal_the_paper(batch_norm):
    engine = build_engine(settings_of(weight_batch_norm=batch_norm))
    net = copy.deepcopy(engine.method.networks["student"])
    mean = copy.deepcopy(engine.method.networks["average"])
    optimizer = Sgd(net)
    for step in range(3):
        batches = draw(step)
        engine.run_step([batches])
        engine.runtime.seed(SEED, step)
        share = torch.distributions.Beta(0.75, 0.75).sample()
        share, partner = max(share, 1 - share), torch.randperm(8)
        z = torch.cat((batches["pseudo"].image, batches["labeled"].image))
        y = torch.cat((batches["pseudo"].mask, batches["labeled"].mask)).flatten().long()
        gamma = 4 * math.exp(-5 * (1 - step / NUM_STEPS) ** 2)
        logits = look(net, z, batch_norm == "batch")[:6]
        w = weights(logits, y[:6], batches["pseudo"].confidence.flatten(), gamma)
        w = torch.cat((w, w.new_ones(2)))
        logits = net(share * z + (1 - share) * z[partner]).flatten(1)
        own, other = (F.cross_entropy(logits, k, reduction="none") for k in (y, y[partner]))
        w = share * w + (1 - share) * w[partner]
        loss = (w * (share * own + (1 - share) * other)).sum() / 8
        optimizer.step(loss, poly(step))
        average(mean.parameters(), net.parameters(), 0.9)
        average_buffers(mean, net, 0.9)
        assert engine.means()["mixed"] == pytest.approx(loss.item(), rel=1e-6)
        assert_same(engine, {"student": net, "average": mean})


@pytest.mark.parametrize(
    ("changes", "passes"), [({}, 2), ({"form": "plain"}, 1), ({"labels": ""}, 1)]
)
def test_passes_of_a_step(changes, passes):
    engine = build_engine(settings_of(**changes))
    counts = count_forwards(engine.method.networks)
    engine.run_step([draw(0)])
    assert counts == {"student": passes, "average": 0}


def test_the_first_link_learns_from_labels_alone():
    engine = build_engine(settings_of(labels="", mixup=0.0))
    assert list(engine.method.streams) == ["labeled"]
    batch = draw(0)["labeled"]
    logits = copy.deepcopy(engine.method.student)(batch.image).flatten(1)
    expected = F.cross_entropy(logits, batch.mask.flatten().long())
    torch.testing.assert_close(engine.method.mixed({"labeled": batch}, 0)["loss"], expected)


def test_the_average_of_a_constant_and_of_a_step():
    method = build_engine(settings_of(ema_decay=0.9)).method
    before = copy.deepcopy(method.average.state_dict())
    method.update_average(0)
    torch.testing.assert_close(method.average.state_dict(), before)
    with torch.no_grad():
        for old, new in zip(method.average.parameters(), method.student.parameters(), strict=True):
            old.zero_()
            new.fill_(1)
    for step in range(3):
        method.update_average(step)
    for value in method.average.parameters():
        torch.testing.assert_close(value, torch.full_like(value, 1 - 0.9**3))


def test_mixup_keeps_the_larger_share():
    torch.manual_seed(0)
    drawn = [draw_mixup(5, 0.75, torch.device("cpu")) for _ in range(300)]
    shares = torch.stack([share for share, _ in drawn])
    assert shares.min() >= 0.5
    # The mean of max(x, 1 - x) under Beta(.75, .75), by integration.
    x = (torch.arange(200_000) + 0.5) / 200_000
    density = (x * (1 - x)) ** -0.25
    expected = (torch.maximum(x, 1 - x) * density).sum() / density.sum()
    assert abs(shares.mean() - expected) < 0.03
    assert all(partner.sort().values.tolist() == list(range(5)) for _, partner in drawn)
    assert draw_mixup(5, 0.0, torch.device("cpu"))[0] == 1


def test_gamma_rises_to_its_greatest_value():
    values = [rise(step, 100) for step in range(101)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(math.exp(-5))
    assert values[-1] == 1


def test_the_chain_trains_each_link_anew():
    plan = chain_of().plan()
    check_plan(plan)
    train = [part for part in plan if isinstance(part, TrainPart)]
    label = [part for part in plan if isinstance(part, LabelPart)]
    assert [part.name for part in train] == ["f0", "f1", "f2", "f3", "f4", "f5"]
    assert not any(part.start for part in train)
    assert [part.settings.ratio for part in label] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert {part.settings.threshold for part in label} == {"global"}
    assert len({part.settings.seed for part in train}) == 6
    assert [part.settings.num_steps for part in train[1:]] == [1, 2, 2, 3, 4]
    assert chain_of().result == "f5"


def test_a_chain_from_images_to_accuracy(pictures, tmp_path, monkeypatch):
    settings = chain_of(ratios=(0.5, 1.0))
    run_rounds(settings, data=pictures, split="few", out=tmp_path / "whole")
    interrupt(monkeypatch, settings, pictures, tmp_path / "halves", steps=6)
    assert_same_state(tmp_path / "halves" / "f2", tmp_path / "whole" / "f2")
    rows = (tmp_path / "whole" / "f1" / "metrics.jsonl").read_text().splitlines()
    assert {"accuracy", "fine_grained"} <= json.loads(rows[-1]).keys()
    # Half of the 60 unlabeled images, by confidence over all classes.
    labels = open_pseudo_labels(tmp_path / "whole" / "labels-f0")
    assert len(labels) == 30
    batch = next(stream_of(pictures, labels, batch_size=30))
    assert batch.mask.shape == batch.confidence.shape == (30, 1, 1)
    for key, label, confidence in zip(batch.keys, batch.mask, batch.confidence, strict=True):
        stored = read_pseudo_label(labels[key])
        assert label.item() == stored.label.item()
        assert confidence.item() == pytest.approx(stored.confidence.item() / 255)


def stream_of(data, labels=None, open_stream=labeled, **options):
    """Open unlabeled images, as they are, or labeled ones where there are no labels."""
    subset = Dataset.open(data).subset("labeled" if labels is None else "unlabeled", "few")
    if labels is not None:
        options |= {"pseudo": labels}
        subset = subset.only(labels)
    plain = NormalizationSettings(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return open_stream(
        subset,
        geometry=GeometrySettings(crop_size=(32, 32), scale=(1.0, 1.0)),
        normalization=plain,
        loader=LoaderSettings(cache="device"),
        **options,
    )


def test_streams_are_randaugmented(pictures):
    views = next(stream_of(pictures, open_stream=paired, batch_size=12, strong=RANDAUGMENT))
    changed = (views.weak != views.strong).flatten(1).any(1)
    assert changed.sum() >= 9, "some magnitudes of some operations change nothing"
    whole = stream_of(pictures, batch_size=12, strong=RANDAUGMENT, strong_share=1.0)
    next(whole)
    state, batch = whole.state_dict(), next(whole)
    again = stream_of(pictures, batch_size=12, strong=RANDAUGMENT, strong_share=1.0)
    again.load_state_dict(state)
    assert torch.equal(next(again).image, batch.image)
    parts = [
        stream_of(
            pictures,
            batch_size=6,
            strong=RANDAUGMENT,
            strong_share=1.0,
            rank=rank,
            world_size=2,
        )
        for rank in range(2)
    ]
    for part in parts:
        part.load_state_dict(state)
    assert torch.equal(torch.cat([next(part).image for part in parts]), batch.image)


def test_randaugment_is_not_for_masks(scenes):
    subset = Dataset.open(scenes).subset("train")
    with pytest.raises(ValueError, match="classified as wholes"):
        labeled(subset, geometry=GeometrySettings(), batch_size=1, strong=RANDAUGMENT)


@pytest.mark.parametrize(
    ("labels", "steps", "batches"),
    [(4000, (1060 * 8, 750 * 103), (64, 448)), (1000, (2120 * 2, 750 * 99), (16, 496))],
)
def test_the_recipes_are_those_of_table_1(labels, steps, batches):
    settings = RECIPES[f"dmt-cifar10-{labels}-wrn28-2"]()
    first, link = settings.first, settings.link
    assert (first.num_steps, link.num_steps) == steps
    assert (first.optimizer.lr, link.optimizer.lr) == (0.2, 0.1)
    assert (link.batch_size, link.unlabeled_batch_size) == batches
    assert first.batch_size == 512
    assert link.gamma1 == link.gamma2 == 4
    assert link.augmentation.view == "randaugment"
    assert RECIPES[f"dmt-cl-cifar10-{labels}-wrn28-2"]().link.form == "plain"


def test_the_oracle_learns_all_labels_as_the_first_link():
    """Appendix B: 300 epochs of what is not held out, at the baseline's rate."""
    oracle = RECIPES["dmt-oracle-cifar10-wrn28-2"]()
    first = RECIPES["dmt-cifar10-4000-wrn28-2"]().first
    assert oracle.num_steps == 300 * 98
    assert oracle == replace(first, num_steps=oracle.num_steps)
