"""Who judges a mask, what they say of it, and the command over it all."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import METHOD_RECIPES, tiny_recipe
from warpseg.__main__ import main
from warpseg.pipelines.normalization import NORMALIZATIONS
from warpseg.shards import Dataset
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.engine.runtime import open_runtime
from warpseg.trainers.reports.diagnoses.masks import look_at_masks
from warpseg.trainers.reports.diagnoses.masks_page import write_page
from warpseg.trainers.runs.judging import Judges
from warpseg.trainers.runs.kept.held_out import call_juries, learnt_keys
from warpseg.trainers.runs.start import start
from warpseg.trainers.scoring.trained import TrainedNetwork

NAMES = ("red", "green", "blue")
CROPPED = EvaluationSettings(mode="center_crop", crop_size=(8, 8))
PALETTE = ((200, 0, 0), (0, 200, 0), (0, 0, 200))


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Return a data set of images whose strongest channel is the class; the mask of one is wrong in
    a corner, another one in two classes."""
    root = tmp_path_factory.mktemp("colours")
    draw = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / "mine" / folder).mkdir(parents=True)
    for number in range(8):
        mask = np.kron(draw.integers(0, 3, (3, 4)), np.ones((16, 16))).astype(np.uint8)
        image = draw.integers(0, 60, (*mask.shape, 3)).astype(np.uint8)
        image[np.arange(48)[:, None], np.arange(64), mask] += 180
        mask = mask.copy()
        if number == 2:
            mask[:20, :20] = (mask[:20, :20] + 1) % 3
        if number == 5:
            mask = np.array([1, 0, 2], np.uint8)[mask]
        Image.fromarray(image).save(root / "mine" / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "mine" / "masks" / f"{number}.png")
    (root / "mine" / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    assert main(["convert", "folder", str(root / "mine"), str(root / "data")]) == 0
    assert main(["split", str(root / "data"), "half", "--labeled", "4"]) == 0
    return Dataset.open(root / "data")


@pytest.fixture
def trained(copying):
    """Return a network that labels a pixel by its strongest channel."""
    with torch.no_grad():
        copying.classifier.weight.mul_(12)
    return TrainedNetwork(
        network=copying,
        name="copying",
        classes=NAMES,
        palette=PALETTE,
        normalization=NORMALIZATIONS["none"],
        evaluation=EvaluationSettings(),
    )


def origin(dataset, split):
    return {"method": "supervised", "data": str(dataset.root.resolve()), "split": split}


def test_wrong_masks_come_first(colours, trained, tmp_path):
    judges = Judges([trained], open_runtime("cpu"))
    report = look_at_masks(judges, colours, "train")
    names = [suspect.sample.name for suspect in report.suspects]
    assert names[:2] == ["images/5.png", "images/2.png"]
    assert report.standing_out == 2
    (_, first), *_ = [entry for entry in report.regions() if entry[0].sample.name == names[1]]
    assert first.top + first.height <= 22
    assert first.left + first.width <= 22
    report.write(tmp_path)
    write_page(report, judges, tmp_path, 3)
    rows = list(csv.DictReader((tmp_path / "masks.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == names
    assert [row["stands_out"] for row in rows] == ["True"] * 2 + ["False"] * 6
    regions = list(csv.DictReader((tmp_path / "regions.csv").read_text().splitlines()))
    scores = [float(row["score"]) for row in regions]
    assert scores == sorted(scores, reverse=True)
    told = json.loads((tmp_path / "masks.json").read_text())
    assert (told["images"], told["stand_out"], len(told["regions"])) == (8, 2, len(regions))
    text = (tmp_path / "masks.html").read_text()
    assert text.count("data:image/jpeg;base64,") == 4
    assert "2 of 8 masks of train stand out" in text
    with Image.open(tmp_path / "masks.png") as sheet:
        assert sheet.height > 3 * 200


def test_opinions_are_the_mean_of_the_networks(colours, trained, pooled):
    other = replace(trained, network=pooled(3, 4))
    judges = Judges([trained, other], open_runtime("cpu"))
    (sample,) = colours.subset("train").samples()[2:3]
    ((image, made),) = judges.opinions([sample], (0, 1))
    whole = judges.probabilities(image, (0, 1))
    each = [judges.probabilities(image, (number,)) for number in (0, 1)]
    assert whole == pytest.approx((each[0] + each[1]) / 2, abs=1e-6)
    mask = sample.read_mask()
    assert np.array_equal(made.mask, mask)
    assert np.array_equal(made.label, whole.argmax(0))
    assert made.sure == pytest.approx(whole.max(0), abs=1e-6)
    assert made.given == pytest.approx(
        np.take_along_axis(whole, mask[None].astype(int), 0)[0], abs=1e-6
    )


def test_each_mask_is_judged_by_those_that_did_not_learn_it(colours, trained):
    labeled = {sample.key for sample in colours.subset("labeled", "half").samples()}
    half = replace(trained, origin=origin(colours, "half"))
    every = replace(trained, origin=origin(colours, None))
    stranger = replace(trained, origin={"method": "supervised", "data": "elsewhere"})
    assert learnt_keys(half, colours) == labeled
    assert len(learnt_keys(every, colours)) == 8
    assert learnt_keys(stranger, colours) is None
    assert learnt_keys(replace(trained, origin=origin(colours, "gone")), colours) is None
    juries = call_juries(
        colours.subset("train"), [learnt_keys(network, colours) for network in (half, every)]
    )
    told = {key: jury for jury in juries for key in (s.key for s in jury.subset.samples())}
    assert len(told) == 8
    for key, jury in told.items():
        expected = ((0, 1), False) if key in labeled else ((0,), True)
        assert (jury.members, jury.held_out) == expected


def test_the_report_says_who_learnt_the_masks(colours, trained):
    judges = Judges([replace(trained, origin=origin(colours, "half"))], open_runtime("cpu"))
    report = look_at_masks(judges, colours, "train")
    assert report.unseen() == 4
    assert "4 of 8 were judged by networks that were trained on them" in report.headline()
    assert "--pair" in report.headline()


@pytest.mark.parametrize(
    ("change", "subset", "words"),
    [
        ({"classes": ("a", "b", "c")}, "train", "name the data set"),
        (
            {"evaluation": EvaluationSettings(mode="center_crop", crop_size=(8, 8))},
            "train",
            "whole",
        ),
        ({"task": "classification"}, "train", "whole images"),
        ({}, "train-images", "no masks"),
    ],
)
def test_what_cannot_judge_is_refused(colours, trained, change, subset, words):
    judges = Judges([replace(trained, **change)], open_runtime("cpu"))
    with pytest.raises(ValueError, match=words):
        judges.juries(colours, subset)


def test_a_network_without_numbers_is_refused(colours, trained):
    with torch.no_grad():
        trained.network.classifier.weight.fill_(float("nan"))
    judges = Judges([trained], open_runtime("cpu"))
    with pytest.raises(ValueError, match="training diverged"):
        look_at_masks(judges, colours, "train")


def test_the_command_judges_by_runs(colours, tmp_path, capsys):
    settings = tiny_recipe(METHOD_RECIPES["supervised"], num_steps=1)
    start(settings, data=colours.root, split="half", out=tmp_path / "run", device="cpu")
    words = ["diagnose", "masks", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    assert main([*words, "--count", "1"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["images"], told["held_out"]) == (8, 4)
    assert (tmp_path / "out" / "masks.html").is_file()
    assert main([*words, "--subset", "val"]) == 1
    assert "has no 'val'" in capsys.readouterr().err
    assert main(["diagnose", "masks", "--out", str(tmp_path / "out")]) == 1
    assert "takes one RUN or more" in capsys.readouterr().err
