"""Classification from image files to accuracy, and the published recipes of the one-way paper."""

import json
import sys
from pathlib import Path

import pytest
import torch
from running import run_classifier
from warpseg.__main__ import main
from warpseg.pipelines import labeled
from warpseg.shards import Dataset
from warpseg.trainers.engine.checkpoint import load_checkpoint
from warpseg.trainers.engine.optimization import OptimizerSettings
from warpseg.trainers.engine.processes.stopping import Stopped
from warpseg.trainers.recipes.registry import RECIPES

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny  # noqa: F401

TINY = "cifar10-wrn28-2-tiny"


@pytest.mark.parametrize(
    "method",
    ["supervised", "supervised-phtps", "vat", "consistency", "consistency-mt", "consistency-1w-p2"],
)
def test_a_stopped_run_ends_with_the_same_bits(method, pictures, tmp_path, monkeypatch):
    from warpseg.trainers.runs.run import Run

    name = f"{method}-{TINY}"
    rows = run_classifier(name, pictures, tmp_path / "whole")
    assert {"accuracy", "images"} <= rows[-1].keys()
    assert rows[-1]["images"] == 24
    step = Run._step

    def stops(self):
        if self.engine.step == 5:
            raise KeyboardInterrupt
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", stops)
        with pytest.raises(Stopped):
            run_classifier(name, pictures, tmp_path / "halves")
    again = run_classifier(name, pictures, tmp_path / "halves", resume=True)
    assert [row.get("losses") for row in again] == [row.get("losses") for row in rows]
    states = [
        load_checkpoint(tmp_path / part)["engine"]["networks"] for part in ("whole", "halves")
    ]
    for network, state in states[0].items():
        for key, value in state.items():
            assert torch.equal(value, states[1][network][key]), (network, key)


def test_images_are_learned_and_scored_by_accuracy(pictures, tmp_path, capsys):
    optimizer = OptimizerSettings(name="adam", lr=1e-2, weight_decay=0.0)
    run_classifier(
        f"supervised-{TINY}",
        pictures,
        tmp_path / "run",
        num_steps=60,
        batch_size=12,
        optimizer=optimizer,
    )
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    score = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert score["accuracy"] > 0.6, "three classes"


def test_crops_are_padded_and_shifted_by_four_pixels(pictures):
    settings = RECIPES["consistency-cifar10-4000-wrn28-2"]()
    stream = labeled(
        Dataset.open(pictures).subset("train"),
        geometry=settings.geometry,
        normalization=settings.normalization,
        loader=settings.loader,
        batch_size=64,
    )
    batch = next(stream)
    stream.close()
    assert batch.image.shape == (64, 3, 32, 32)
    assert batch.mask.shape == (64, 1, 1)
    # No pixel of the pictures is black in all channels of a whole row, so zeros are padding.
    empty = (batch.image == 0).all(1).all(2).sum(1)
    assert empty.max() == 4
    assert len(empty.unique()) == 5
    assert batch.image.max() <= 1


@pytest.mark.parametrize(
    ("labels", "supervised", "semi"),
    [(250, 100, 16_000), (1000, 700, 28_000), (4000, 3100, 31_000), (50_000, 39_000, 31_200)],
)
def test_the_recipes_of_cifar10_are_the_papers(labels, supervised, semi):
    family = f"cifar10-{labels}-wrn28-2"
    assert RECIPES[f"supervised-{family}"]().num_steps == supervised
    for method in ("consistency", "consistency-1w-cs", "consistency-2w-c1", "vat"):
        settings = RECIPES[f"{method}-{family}"]()
        assert settings.num_steps == semi
        assert (settings.batch_size, settings.unlabeled_batch_size) == (128, 640)
        assert settings.alpha == 1
    assert RECIPES[f"consistency-{family}"]().strong.tps_sigma == 0.1
    assert RECIPES[f"supervised-phtps-{family}"]().augmentation.tps_sigma == 0.1


@pytest.mark.parametrize(
    ("recipe", "batch", "epochs", "alpha", "rates", "decays"),
    [
        ("consistency-cityscapes-half-swiftnet18", 8, 200, 0.5, (4e-4, 1e-4), (1e-4, 2.5e-5)),
        ("consistency-mt-cityscapes-half-deeplabv2", 4, 100, 0.5, (4e-4, 1e-4), (1e-4, 2.5e-5)),
        ("consistency-cityscapes-swiftnet34", 8, 250, 0.5, (4e-4, 1e-4), (2.5e-5, 6.25e-6)),
        ("supervised-cityscapes-swiftnet34", 8, 250, None, (4e-4, 1e-4), (1e-4, 2.5e-5)),
        ("consistency-mt-cutmix-l2-cityscapes-half-swiftnet18", 8, 200, 1.0, None, None),
    ],
)
def test_the_recipes_of_cityscapes_are_the_papers(recipe, batch, epochs, alpha, rates, decays):
    settings = RECIPES[recipe]()
    assert settings.batch_size == batch
    assert settings.num_steps == epochs * (2975 // batch)
    assert getattr(settings, "alpha", None) == alpha
    optimizer = settings.optimizer
    if rates:
        assert (optimizer.lr, optimizer.backbone_lr) == rates
        assert (optimizer.weight_decay, optimizer.backbone_weight_decay) == decays
