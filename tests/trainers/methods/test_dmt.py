"""DMT's segmentation: whole steps against the paper written out, its plan of phases, and a run of
all of them that is interrupted."""

import copy
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from by_hand import (
    CLASSES,
    SIZE,
    Sgd,
    assert_same,
    build_engine,
    count_forwards,
    draw_batches,
    full,
    losses,
    mean_loss,
    poly,
    small,
)
from PIL import Image
from running import assert_same_state, interrupt
from tiny import tiny_recipe
from warpseg import IGNORE
from warpseg.__main__ import main
from warpseg.pipelines.batches import LabeledBatch
from warpseg.pipelines.normalization import NORMALIZATIONS, NormalizationSettings
from warpseg.pipelines.paper import GAP
from warpseg.shards import Dataset
from warpseg.trainers.engine.streams import open_streams
from warpseg.trainers.methods.dmt_rounds import DmtRounds
from warpseg.trainers.methods.rounds import LabelPart, TrainPart, check_plan
from warpseg.trainers.recipes.registry import RECIPES
from warpseg.trainers.runs.rounds.run import run_rounds

PHASE = "dmt-phase-synthetic-swiftnet18-tiny"
ROUNDS = "dmt-synthetic-swiftnet18-tiny"
GAMMA1, GAMMA2 = 2.0, 1.5


def settings_of(**changes):
    given = {"labels": "labels", "gamma1": GAMMA1, "gamma2": GAMMA2}
    return small(PHASE, **{**given, **changes})


def draw(step):
    """Return a labeled batch of 2 and a pseudo-labeled one of 3, with dropped pixels."""
    batches = draw_batches(step)
    generator = torch.Generator().manual_seed(500 + step)
    label = torch.randint(CLASSES, (3, *SIZE), generator=generator).to(torch.uint8)
    label[1, 3:17] = IGNORE
    confidence = torch.rand(3, *SIZE, dtype=torch.float64, generator=generator) * 0.6 + 0.1
    pseudo = LabeledBatch(
        image=batches["unlabeled"].weak, mask=label, confidence=confidence, keys=("c", "d", "e")
    )
    return {"labeled": batches["labeled"], "pseudo": pseudo}


def weights(logits, label, c_a):
    """Eq. 6 at every pixel, and how many kept pixels are in each case."""
    prob = logits.detach().softmax(1)
    c_b, y_b = prob.max(1)
    p_b = prob.gather(1, torch.where(label == IGNORE, 0, label).long()[:, None])[:, 0]
    agree, weaker = y_b == label, (y_b != label) & (c_a >= c_b)
    weight = torch.where(agree, p_b**GAMMA1, torch.where(weaker, p_b**GAMMA2, 0))
    kept = label != IGNORE
    return weight, [(case & kept).sum() for case in (agree, weaker, ~agree & ~weaker)]


def hand_loss(net, batches, normalizer):
    """Eq. 7 to 10 on the joint batch."""
    pseudo, labeled = batches["pseudo"], batches["labeled"]
    z = full(net(torch.cat((pseudo.image, labeled.image))))
    taught, given = z[:3], z[3:]
    weight, cases = weights(taught, pseudo.mask, pseudo.confidence)
    loss = (weight * losses(taught, pseudo.mask)).sum()
    kept = (pseudo.mask != IGNORE).sum()
    if normalizer == "separate":
        return loss / kept + mean_loss(given, labeled.mask), cases
    loss = loss + losses(given, labeled.mask).sum()
    return loss / (kept + (labeled.mask != IGNORE).sum()), cases


@pytest.mark.parametrize("normalizer", ["joint", "separate"])
def test_steps_equal_the_paper(normalizer):
    engine = build_engine(settings_of(normalizer=normalizer))
    net = copy.deepcopy(engine.method.networks["student"])
    optimizer = Sgd(net)
    for step in range(3):
        batches = draw(step)
        engine.run_step([batches])
        loss, cases = hand_loss(net, batches, normalizer)
        optimizer.step(loss, poly(step))
        assert_same(engine, {"student": net})
        logged = engine.means()
        assert logged["mutual"] == pytest.approx(loss.item(), rel=1e-6)
        kept = (batches["pseudo"].mask != IGNORE).sum()
        shares = [logged[f"mutual/{name}"] for name in ("agree", "weaker", "stronger")]
        assert shares == pytest.approx([(case / kept).item() for case in cases], rel=1e-6)
        assert min(shares) > 0, "the batch shows all three cases"
        assert logged["mutual/kept"] == pytest.approx(kept.item() / (3 * 32 * 32))


def joint_loss(batches, **changes):
    """Return our loss of the first step, and the logits of the joint batch."""
    engine = build_engine(settings_of(**changes))
    method, net = engine.method, copy.deepcopy(engine.method.student)
    pseudo = batches["pseudo"]
    image = pseudo.image if isinstance(pseudo, LabeledBatch) else pseudo.weak
    logits = full(net(torch.cat((image, batches["labeled"].image))))
    return method.mutual(batches, 0)["loss"], logits


@pytest.mark.parametrize("changes", [{"gamma1": 0.0, "gamma2": 0.0}, {"form": "plain"}])
def test_without_weights_it_is_cross_entropy_on_all(changes):
    batches = draw(0)
    loss, logits = joint_loss(batches, **changes)
    label = torch.cat((batches["pseudo"].mask, batches["labeled"].mask))
    torch.testing.assert_close(loss, mean_loss(logits, label))


def test_online_labels_are_the_networks_own_of_that_moment():
    batches = {**draw_batches(0), "pseudo": draw_batches(0)["unlabeled"]}
    loss, logits = joint_loss(batches, form="online", labels="", threshold=0.4)
    confidence, own = logits.detach().softmax(1)[:3].max(1)
    sure = batches["pseudo"].valid & (confidence >= 0.4)
    assert 0 < sure.sum() < batches["pseudo"].valid.sum()
    label = torch.cat((torch.where(sure, own, IGNORE), batches["labeled"].mask))
    torch.testing.assert_close(loss, mean_loss(logits, label))


def test_online_images_may_stay_as_they_are(scenes):
    """Crops of unlabeled images at their own size, while labeled ones are scaled and flipped."""
    settings = small(PHASE, form="online", augment_unlabeled=False)
    engine = build_engine(settings)
    specs = engine.method.streams
    assert specs["labeled"].geometry is None
    dataset = Dataset.open(scenes)
    streams = open_streams(specs, dataset, "few", settings, engine.runtime)
    files = {s.key: s for s in dataset.subset("unlabeled", "few").samples()}
    look = settings.normalization
    for _ in range(3):
        batch = next(streams["pseudo"])
        for image, key in zip(batch.weak, batch.keys, strict=True):
            with Image.open(io.BytesIO(files[key].read("png"))) as file:
                pixels = torch.from_numpy(np.array(file.convert("RGB"))).movedim(-1, 0)
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in (look.mean, look.std))
            whole = (pixels / 255 - mean) / std
            windows = whole.unfold(1, 32, 1).unfold(2, 32, 1)
            apart = (windows - image[:, None, None]).abs().amax((0, 3, 4))
            assert apart.min() < 1e-4, "the crop is a part of the image"
    for stream in streams.values():
        stream.close()


def test_labeled_pixels_weigh_one():
    batches = draw(0)
    nothing = torch.full_like(batches["pseudo"].mask, IGNORE)
    batches["pseudo"] = replace(batches["pseudo"], mask=nothing)
    loss, logits = joint_loss(batches)
    torch.testing.assert_close(loss, mean_loss(logits[3:], batches["labeled"].mask))


def test_a_step_is_one_forward_pass():
    engine = build_engine(settings_of())
    counts = count_forwards(engine.method.networks)
    engine.run_step([draw(0)])
    assert counts == {"student": 1}


def test_missing_labels_are_named():
    with pytest.raises(ValueError, match="--labels FOLDER"):
        build_engine(settings_of(labels=""))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gamma1": -1.0}, "--gamma1 must be 0 or more"),
        ({"threshold": 1.5}, "--threshold must lie"),
        ({"unlabeled_batch_size": 0}, "--unlabeled-batch-size must be at least 1"),
    ],
)
def test_settings_are_checked(changes, said):
    with pytest.raises(ValueError, match=said):
        settings_of(**changes)


def rounds_of(**changes):
    settings = RECIPES[ROUNDS]()
    start = tiny_recipe("supervised-synthetic-swiftnet18-tiny", num_steps=3)
    phase = tiny_recipe(PHASE, num_steps=2)
    return replace(settings, supervised=start, phase=phase, **changes)


def test_the_networks_label_for_each_other():
    plan = rounds_of(ratios=(0.5, 1.0)).plan()
    check_plan(plan)
    assert [part.name for part in plan] == [
        *("a0", "b0", "labels-a0", "b1", "labels-b0", "a1"),
        *("labels-a1", "b2", "labels-b1", "a2"),
    ]
    train = {part.name: part for part in plan if isinstance(part, TrainPart)}
    label = {part.name: part for part in plan if isinstance(part, LabelPart)}
    assert (train["b2"].start, train["b2"].labels) == ("b1", "labels-a1")
    assert (train["a2"].start, train["a2"].labels) == ("a1", "labels-b1")
    assert label["labels-b1"].source == "b1"
    assert [part.settings.ratio for part in label.values()] == [0.5, 0.5, 1.0, 1.0]
    assert {part.settings.sample_every for part in label.values()} == {16}
    seeds = [part.settings.seed for part in train.values()]
    assert len(set(seeds)) == len(seeds)
    others = rounds_of(ratios=(0.5, 1.0), seed=1).plan()
    assert not set(seeds) & {p.settings.seed for p in others if isinstance(p, TrainPart)}


def test_networks_differ_by_weights_or_by_labeled_images():
    settings = rounds_of(other_weights="imagenet", other_normalization="half", halves=True)
    parts = {part.name: part for part in settings.plan() if isinstance(part, TrainPart)}
    assert parts["a0"].settings.network.weights == "none"
    assert parts["b0"].settings.network.weights == "imagenet"
    for name, part in parts.items():
        # "network": that of the network's weights.
        look = NORMALIZATIONS["half"] if name[0] == "b" else NormalizationSettings()
        assert part.settings.normalization == look
        assert part.half == (name[0] if name[1] == "0" else "")
    assert settings.result == "a5"
    assert set(settings.candidates) == {"a5", "b5"}


def test_one_network_teaches_itself():
    plan = rounds_of(self_taught=True, ratios=(1.0,)).plan()
    assert [part.name for part in plan] == ["a0", "labels-a0", "a1"]
    online = replace(rounds_of(self_taught=True), phase=tiny_recipe(PHASE, form="online"))
    assert [part.name for part in online.plan()] == ["a0", "a1"]
    with pytest.raises(ValueError, match="--self-taught"):
        replace(online, self_taught=False)


@pytest.mark.parametrize("ratios", [(), (0.0,), (1.2,)])
def test_ratios_are_checked(ratios):
    with pytest.raises(ValueError, match="--ratios"):
        rounds_of(ratios=ratios)


def test_interrupted_rounds_end_with_the_same_bits(scenes, tmp_path, monkeypatch):
    settings = rounds_of(ratios=(0.5,))
    run_rounds(settings, data=scenes, split="few", out=tmp_path / "whole")
    interrupt(monkeypatch, settings, scenes, tmp_path / "halves", steps=9)
    for part in ("b1", "a1"):
        assert_same_state(tmp_path / "halves" / part, tmp_path / "whole" / part)
    picture = tmp_path / "weights.png"
    words = ["diagnose", "weights", str(tmp_path / "whole"), "--out", str(picture)]
    assert main([*words, "--samples", "3"]) == 0
    # Image, true mask, labels of a0 and their weights for b0, four times as wide as they are.
    with Image.open(picture) as drawn:
        assert drawn.width == GAP + 4 * (4 * 32 + GAP)


@pytest.mark.parametrize(
    ("recipe", "epochs", "lr", "gamma", "batch"),
    [
        ("voc-1323", (85 * 166, 5 * 1323), (2e-3, 1e-3), 5, (1, 7)),
        ("voc-100", (300 * 10, 4 * 1498), (2e-3, 1e-3), 5, (1, 7)),
        ("voc-212", (212 * 22, 4 * 1482), (2e-3, 1e-3), 5, (1, 7)),
        ("cityscapes-half-372", (170 * 47, 10 * 434), (4e-3, 4e-3), 3, (2, 6)),
        ("cityscapes-half-100", (328 * 13, 8 * 411), (4e-3, 4e-3), 3, (1, 7)),
    ],
)
def test_the_recipes_are_those_of_table_1(recipe, epochs, lr, gamma, batch):
    settings = RECIPES[f"dmt-{recipe}-deeplabv2"]()
    start, phase = settings.supervised, settings.phase
    assert (start.num_steps, phase.num_steps) == epochs
    assert (start.optimizer.lr, phase.optimizer.lr) == lr
    assert phase.gamma1 == phase.gamma2 == gamma
    assert (phase.batch_size, phase.unlabeled_batch_size) == batch
    assert settings.ratios == (0.2, 0.4, 0.6, 0.8, 1.0)


def test_voc_is_padded_with_black_in_training_scores_and_labels():
    found = [recipe() for name, recipe in RECIPES.items() if "dmt-" in name and "-voc-" in name]
    rounds = [settings for settings in found if isinstance(settings, DmtRounds)]
    assert len(rounds) == 17
    for settings in rounds:
        assert settings.supervised.normalization == NORMALIZATIONS["caffe"]
        for held in (settings.supervised, settings.phase):
            assert held.geometry.fill == held.evaluation.fill == (0, 0, 0)
            assert held.evaluation.pad_to == (505, 505)
        assert settings.labeling.evaluation == settings.supervised.evaluation


def test_the_ablations_are_those_of_table_7():
    whole = RECIPES["dmt-voc-530-deeplabv2"]()
    parts = {"cbst": 11, "dst": 11, "online": 2, "naive": 22, "flip": 22}
    forms = dict(zip(parts, ("plain", "dynamic", "online", "naive", "flip"), strict=True))
    unaugmented = RECIPES["dmt-online-unaugmented-voc-530-deeplabv2"]()
    online = RECIPES["dmt-online-voc-530-deeplabv2"]()
    assert unaugmented == replace(online, phase=replace(online.phase, augment_unlabeled=False))
    for word, count in parts.items():
        settings = RECIPES[f"dmt-{word}-voc-530-deeplabv2"]()
        assert len(settings.plan()) == count
        assert settings.phase.form == forms[word]
        epochs = 5 if word == "online" else 1
        assert settings.phase.num_steps == epochs * whole.phase.num_steps
