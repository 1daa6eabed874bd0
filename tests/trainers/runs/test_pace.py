"""How often a run is scored by itself, and that scores leave no trace in what is trained."""

from dataclasses import replace

import pytest
from running import assert_same_state, rows, run
from tiny import METHOD_RECIPES, tiny_recipe
from warpseg.pipelines import GeometrySettings
from warpseg.shards import Dataset
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.runs import pace
from warpseg.trainers.runs.pace import pixels_labeled, scoring_interval


@pytest.fixture
def validation(scenes):
    """Return 4 images of 48 x 48 pixels."""
    return Dataset.open(scenes).subset("val")


@pytest.mark.parametrize(
    ("steps", "images", "crop", "interval"),
    [
        # 5 % of 3 x steps x images x crop² pixels are 1.66 times the 9216 of a score.
        (100, 1, 32, 50),
        (100, 8, 32, 20),  # up to five scores, the last one included
        (1001, 8, 32, 201),
        (99, 800, 32, 0),  # too short
        (100, 1, 16, 0),  # scores would cost more than they may
    ],
)
def test_cheap_scores_are_taken_up_to_five_times(steps, images, crop, interval, validation):
    settings = tiny_recipe(
        METHOD_RECIPES["supervised"],
        num_steps=steps,
        geometry=GeometrySettings(crop_size=(crop, crop)),
    )
    assert scoring_interval(settings, validation, images) == interval
    assert scoring_interval(settings, None, images) == 0
    for asked in (0, 7):
        assert scoring_interval(replace(settings, evaluate_every=asked), validation, 8) == asked


def test_pixels_are_those_that_the_protocol_shows_the_network():
    def count(**settings):
        return pixels_labeled(EvaluationSettings(**settings), (100, 200))

    assert count() == 20_000
    assert count(mode="resize", size=(10, 20)) == 200
    assert count(mode="center_crop", crop_size=(50, 60)) == 3000
    assert count(scales=(0.5, 1.0), flip=True) == 2 * (5000 + 20_000)
    assert count(mode="sliding", crop_size=(50, 50), stride=0.5) == 80_000


def test_scores_on_the_way_change_no_bit_of_the_training(scenes, tmp_path, monkeypatch):
    run("consistency", scenes, tmp_path / "end")
    monkeypatch.setattr(pace, "LEAST_STEPS", 1)
    monkeypatch.setattr(pace, "SHARE", 10.0)
    run("consistency", scenes, tmp_path / "often")
    scored = [
        [row["step"] for row in rows(tmp_path / n) if "miou" in row] for n in ("end", "often")
    ]
    assert scored == [[8], [2, 4, 6, 8]]
    assert_same_state(tmp_path / "end", tmp_path / "often")


def test_a_run_goes_on_with_other_scores_on_the_way(scenes, tmp_path):
    run("supervised", scenes, tmp_path / "run", evaluate_every=0)
    run("supervised", scenes, tmp_path / "run", resume=True, evaluate_every=4)
    assert [row["step"] for row in rows(tmp_path / "run") if "miou" in row] == [8]
