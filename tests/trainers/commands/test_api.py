"""The functions of Python, on networks that train in milliseconds."""

import dataclasses
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import warpseg
from PIL import Image
from warpseg.trainers.commands import compare as compare_module
from warpseg.trainers.commands.compare import CompareSettings, list_candidates
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.recipes.registry import RECIPES

sys.path.insert(0, str(Path(__file__).parents[1]))
from running import CLASSIFIER, CLASSIFIERS
from tiny import METHOD_RECIPES, tiny_recipe
from tiny_rounds import ROUND_RECIPES


@pytest.fixture(scope="module")
def trained(tmp_path_factory, scenes):
    """Return the run of a Mean Teacher, trained by name with changes."""
    with pytest.MonkeyPatch.context() as patch:
        from tiny import TINY_NETWORKS
        from warpseg.models.build import NETWORKS

        for name, builder in TINY_NETWORKS.items():
            patch.setitem(NETWORKS, name, builder)
        settings = tiny_recipe(METHOD_RECIPES["consistency-mt"])
        patch.setitem(RECIPES, "tiny-mine", lambda: settings)
        out = tmp_path_factory.mktemp("runs") / "mine"
        changes = {"num_steps": 3, "optimizer": {"lr": 1e-3}, "strong": {"view": "ph"}}
        return warpseg.train("tiny-mine", data=scenes, split="few", out=out, **changes)


def test_training_by_name_with_changes_returns_what_was_recorded(trained):
    held = trained.settings
    assert (held["recipe"], held["split"]) == ("tiny-mine", "few")
    assert held["settings"]["optimizer"]["lr"] == 1e-3
    assert held["settings"]["strong"]["view"] == "ph"
    assert trained.summary()["steps"] == 3
    assert trained.summary()["last"] is not None


def test_training_gives_sigterm_its_old_meaning_back(scenes, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    settings = tiny_recipe(METHOD_RECIPES["supervised"], num_steps=1)
    warpseg.train(settings, data=warpseg.Dataset.open(scenes), out=tmp_path / "run")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_wrong_setting_or_a_taken_folder_is_told(trained, scenes):
    settings = tiny_recipe(METHOD_RECIPES["supervised"])
    with pytest.raises(ValueError, match="no setting num_stepps"):
        warpseg.train(settings, data=scenes, out=trained.path, num_stepps=3)
    with pytest.raises(ValueError, match="holds a run already"):
        warpseg.train(settings, data=scenes, out=trained.path)
    with pytest.raises(ValueError, match="no recipe 'supervised'"):
        warpseg.train("supervised", data=scenes, out=trained.path)


def test_rounds_are_trained_by_the_same_function(scenes, tmp_path):
    settings = ROUND_RECIPES["tiny-simple-baseline"]()
    run = warpseg.train(settings, data=scenes, split="few", out=tmp_path / "rounds", num_steps=5)
    assert run.summary()["steps"] == 5
    parts = {row["part"] for row in run.training}
    assert parts == {"teacher", "student-1"}
    assert warpseg.load(run).origin["step"] == 2


def test_a_score_is_that_of_the_run(trained):
    score = warpseg.evaluate(trained.path)
    assert score.miou == trained.summary()["last"]
    assert warpseg.evaluate(warpseg.load(trained)).miou == score.miou
    teacher = warpseg.evaluate(trained, network="teacher")
    assert teacher.miou == trained.summary()["networks"]["teacher"]
    flipped = warpseg.evaluate(trained, evaluation=EvaluationSettings(flip=True))
    assert "flip" in flipped.evaluation


def test_a_loaded_network_carries_what_it_takes_to_use_it(trained, scenes):
    loaded = warpseg.load(trained)
    data = warpseg.Dataset.open(scenes)
    assert (loaded.classes, loaded.palette) == (data.classes, data.palette)
    assert loaded.normalization.mean == (0.485, 0.456, 0.406)
    assert loaded.evaluation == EvaluationSettings()
    assert not loaded.network.training
    assert warpseg.load(trained.path, network="teacher").origin["network"] == "teacher"
    with pytest.raises(ValueError, match="no network 'assistant'; it has: student, teacher"):
        warpseg.load(trained, network="assistant")
    with pytest.raises(ValueError, match="chosen when a run is loaded"):
        warpseg.evaluate(loaded, network="teacher")


def test_masks_of_arrays_are_those_of_the_files(trained, scenes, tmp_path):
    loaded = warpseg.load(trained)
    torch.nn.init.normal_(loaded.network.classifier.weight, std=9)  # one that knows classes apart
    subset = warpseg.Dataset.open(scenes).subset("val")
    images = [sample.read_image() for sample in subset.samples()]
    images[1] = np.ascontiguousarray(images[1][:37, :41])
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    files = [tmp_path / f"{number}.png" for number in range(len(images))]
    report = warpseg.predict(loaded, files, tmp_path / "out")
    assert report.images == len(images)
    masks = loaded.predict(images, batch_size=2)
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        assert mask.dtype == np.uint8
        assert mask.shape == image.shape[:2]
        written = np.asarray(Image.open(tmp_path / "out" / "masks" / f"{number}.png"))
        assert np.array_equal(mask, written)
        assert np.array_equal(mask, loaded.predict(str(files[number])))
        assert np.array_equal(mask, loaded.predict(Image.open(files[number])))
    assert len(np.unique(np.concatenate([mask.ravel() for mask in masks]))) > 1


def test_a_coloured_mask_is_a_mask_again(trained, tmp_path):
    mask = np.arange(6, dtype=np.uint8).reshape(2, 3)
    loaded = warpseg.load(trained)
    loaded.colour(mask).save(tmp_path / "mask.png")
    held = Image.open(tmp_path / "mask.png")
    assert np.array_equal(np.asarray(held), mask)
    assert held.convert("RGB").getpixel((1, 0)) == loaded.palette[1]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "an array of float32: convert it"),
        (np.zeros((4, 4, 4), np.uint8), r"or \(H, W\); got an array of \(4, 4, 4\)"),
        (np.zeros((0, 4), np.uint8), r"got an array of \(0, 4, 3\)"),
    ],
)
def test_an_array_that_is_no_image_is_told(trained, image, message):
    with pytest.raises(ValueError, match=message):
        warpseg.load(trained).predict(image)


def test_a_protocol_for_scores_alone_is_refused(trained):
    cropped = EvaluationSettings(mode="center_crop", crop_size=(8, 8))
    loaded = dataclasses.replace(warpseg.load(trained), evaluation=cropped)
    with pytest.raises(ValueError, match="labels only the middle of an image"):
        loaded.predict(np.zeros((16, 16), np.uint8))


def test_whole_images_get_a_class(pictures, tmp_path):
    settings = tiny_recipe(f"supervised-{CLASSIFIERS}", network=CLASSIFIER, num_steps=4)
    run = warpseg.train(settings, data=pictures, split="few", out=tmp_path / "run")
    loaded = warpseg.load(run)
    subset = warpseg.Dataset.open(pictures).subset("val")
    samples = subset.samples()
    labels = loaded.predict([sample.read_image() for sample in samples], batch_size=7)
    assert {label.shape for label in labels} == {()}
    true = torch.tensor([int(sample.read_mask().item()) for sample in samples])
    share = (torch.tensor([int(label) for label in labels]) == true).float().mean().item()
    assert share == pytest.approx(run.summary()["last"])


def test_a_comparison_shortens_all_recipes_alike(scenes, tmp_path, monkeypatch):
    settings = CompareSettings(data=scenes, out=tmp_path, split="few")
    families = ("supervised", "consistency", "vat", "mkd", "simple-baseline", "dmt", "dmt-cbst")
    recipes = [f"{family}-synthetic-swiftnet18-tiny" for family in families]
    asked = []

    def listed(names, given, words):
        asked.append(list_candidates(names, given, words))
        raise InterruptedError

    monkeypatch.setattr(compare_module, "list_candidates", listed)
    with pytest.raises(InterruptedError):
        warpseg.compare(recipes, data=scenes, out=tmp_path, split="few", num_steps=60, log_every=2)
    (candidates,) = asked
    assert settings.split == "few"
    for candidate in candidates:
        made = candidate.settings
        total = getattr(made, "num_steps_in_all", None) or made.num_steps
        assert total == 60, candidate.recipe
        runs = [getattr(made, name) for name in getattr(made, "trainings", ())] or [made]
        assert {run.log_every for run in runs} == {2}
