"""How a fit divides memory, and reads amounts."""

import pytest
import torch
from tiny import METHOD_RECIPES, tiny_recipe
from warpseg.shards import Dataset
from warpseg.trainers.recipes.registry import RECIPES
from warpseg.trainers.runs.fitting import amounts, plan
from warpseg.trainers.runs.fitting.amounts import bytes_of, free_memory, seconds_of
from warpseg.trainers.runs.fitting.budget import Times, plan_steps
from warpseg.trainers.runs.fitting.plan import choose_plan

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "seconds"), [("15m", 900), ("1.5h", 5400), ("90s", 90), ("1h30m", 5400), ("1d", 86400)]
)
def test_times_are_read(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "m", "15 minutes", "0s", "-5m", "1h30"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="--budget takes a time"):
        seconds_of(text)


def test_amounts_of_memory_are_read():
    assert bytes_of("8GiB") == 8 * 2**30
    assert bytes_of("1.5 GB") == 1_500_000_000
    for text in ("8", "GiB", "0GiB", "8KB", "-1GiB"):
        with pytest.raises(ValueError, match="--memory takes an amount"):
            bytes_of(text)


def test_a_container_limits_memory(tmp_path, monkeypatch):
    free = free_memory(CPU)
    assert 2**20 < free < 2**50
    (tmp_path / "max").write_text("1000000\n")
    (tmp_path / "used").write_text("400000\n")
    limits = [(str(tmp_path / "max"), str(tmp_path / "used")), (str(tmp_path / "no"), "")]
    monkeypatch.setattr(amounts, "_LIMITS", limits)
    assert free_memory(CPU) == 600000
    (tmp_path / "max").write_text("max\n")
    assert free_memory(CPU) > 2**20


@pytest.fixture
def tiny_family(monkeypatch):
    """Let plans choose the tiny network, whose step is followed in no time."""
    monkeypatch.setitem(
        RECIPES, "consistency-fit", lambda: tiny_recipe(METHOD_RECIPES["consistency"])
    )
    rounds = RECIPES["simple-baseline-camvid-swiftnet18-tiny"]
    monkeypatch.setitem(RECIPES, "simple-baseline-fit", rounds)
    monkeypatch.setattr(plan, "_family", lambda _: ("fit", []))
    monkeypatch.setattr(plan, "PROCESS", {"cpu": 0})


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_plan_fits_the_networks_that_are_offered(scenes, monkeypatch, pretrained):
    monkeypatch.setattr(plan, "find_spec", lambda _: pretrained)
    made = choose_plan(Dataset.open(scenes), CPU, 2**40, "consistency")
    assert made.bytes > 2**20


def test_less_memory_makes_smaller_steps(scenes, monkeypatch, tiny_family):
    """Scenes are 48 x 48: a crop of 128 is none for them."""
    monkeypatch.setattr(plan, "CROPS", {"cpu": (128, 48, 32)})
    dataset = Dataset.open(scenes)
    large = choose_plan(dataset, CPU, 2**40, "consistency")
    assert (large.crop_size, large.batch_size) == (48, 4)
    small = choose_plan(dataset, CPU, large.bytes - 1, "consistency")
    assert (small.crop_size, small.batch_size) == (48, 2)
    assert small.bytes < large.bytes
    smallest = choose_plan(dataset, CPU, small.bytes - 1, "consistency")
    assert (smallest.crop_size, smallest.batch_size) == (32, 4)
    # Images are shrunk so that the crop shows most of them, and keep their shape.
    bound = smallest.words.index("--geometry.bound")
    assert smallest.words[bound + 1 : bound + 3] == ("45", "45")
    assert small.words_of("supervised") == small.words
    assert small.words_of("semi-supervised")[-2:] == ("--unlabeled-batch-size", "2")
    with pytest.raises(ValueError, match="the smallest step takes"):
        choose_plan(dataset, CPU, 2**10, "consistency")
    with pytest.raises(ValueError, match="one training"):
        choose_plan(dataset, CPU, 2**40, "simple-baseline")


def test_without_its_package_weights_are_random_and_it_is_said(scenes, monkeypatch):
    monkeypatch.setattr(plan, "find_spec", lambda name: None)
    made = choose_plan(Dataset.open(scenes), CPU, 2**40, "consistency")
    assert made.method == "consistency-camvid-swiftnet18-tiny"
    assert "random weights" in made.remarks[0]
    assert "pip install" in made.remarks[0]


TIMES = Times(steps={"supervised": 0.2, "semi-supervised": 0.3}, begin=5.0, image=0.1)


def test_steps_are_what_the_other_work_leaves():
    """1000 s, 100 gone; 10 to begin twice, 1 to score 5 images twice, 6 to label 30: 883 are left,
    of which nine tenths are 1589 pairs of steps of half a second."""
    found = plan_steps(TIMES, asked="x", budget=1000, spent=100, scored=5, unlabeled=30)
    assert (found.steps, found.labels, found.suggest) == (1589, 30, False)


def test_suggestions_take_a_fifth_of_the_budget_at_most():
    """0.8 s an image."""
    shared = {"asked": "x", "budget": 1000, "spent": 100, "scored": 5, "suggest": True}
    few = plan_steps(TIMES, unlabeled=30, **shared)
    assert (few.suggest, few.steps) == (True, int(0.9 * (883 - 24) / 0.5))
    many = plan_steps(TIMES, unlabeled=251, **shared)
    assert many == plan_steps(TIMES, unlabeled=251, **shared | {"suggest": False})


def test_labels_take_a_fifth_of_the_budget_at_most():
    shared = {"asked": "x", "spent": 0, "unlabeled": 10**6}
    assert plan_steps(TIMES, budget=1000, scored=5, **shared).labels == 1000
    assert plan_steps(TIMES, budget=35, scored=0, **shared).labels == 35
    slow = Times(steps=TIMES.steps, begin=0, image=10)
    assert plan_steps(slow, budget=900, scored=0, **shared).labels == 12


def test_a_budget_that_would_do_is_named():
    with pytest.raises(ValueError, match=r"--budget 1m leaves time for 0 steps .* 4m or more"):
        plan_steps(TIMES, asked="1m", budget=60, spent=200, scored=5, unlabeled=30)
    found = plan_steps(TIMES, asked="4m", budget=240, spent=200, scored=5, unlabeled=30)
    assert found.steps >= 20
