"""Studies: which runs they ask for, what they write down, and that they go on."""

import importlib
import json
from pathlib import Path

import pytest
from warpseg.benchmarks.studies.study import SMALL, Scenes, Study, Way, run_ways, table_of
from warpseg.benchmarks.words.trainings import StudySettings
from warpseg.trainers.recipes.registry import RECIPES

STUDY = Study(
    text="two ways",
    data={"whole": Scenes(words="--train 4", labeled=2), "part": Scenes(words="--train 4")},
    ways={
        "one": Way(recipe="supervised-synthetic-swiftnet18-tiny", data="whole"),
        "other": Way(
            recipe="supervised-synthetic-swiftnet18-tiny", data="part", words="--rare.dice 1"
        ),
    },
    shown="marker",
)


@pytest.fixture
def asked(tmp_path):
    """Return the lines that a study asks for, and what runs them: a training leaves its scores."""
    lines = []

    def warpseg(line):
        lines.append(line)
        words = line.split()
        if words[0] == "convert":
            Path(words[2]).mkdir(parents=True)
            (Path(words[2]) / "manifest.json").write_text("{}")
        if words[0] == "split":
            (Path(words[1]) / "splits" / words[2]).mkdir(parents=True)
        if words[0] == "train":
            out = Path(words[words.index("--out") + 1])
            out.mkdir()
            seed = int(words[words.index("--seed") + 1])
            rows = [{"step": 3}, {"miou": 0.1 + 0.2 * seed, "iou": {"marker": None}}, {"step": 9}]
            (out / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return 0

    return lines, warpseg


def test_every_way_is_trained_by_every_seed(asked, tmp_path):
    lines, warpseg = asked
    settings = StudySettings(name="partial", seeds=2, steps=7)
    rows = list(run_ways(STUDY, settings, tmp_path / "work", warpseg))
    assert [(row["way"], row["seed"], row["miou"]) for row in rows] == [
        ("one", 0, 0.1),
        ("one", 1, pytest.approx(0.3)),
        ("other", 0, 0.1),
        ("other", 1, pytest.approx(0.3)),
    ]
    trained = [line for line in lines if line.startswith("train")]
    assert all(SMALL in line and "--num-steps 7" in line for line in trained)
    assert ["--split few" in line for line in trained] == [True, True, False, False]
    assert ["--rare.dice 1" in line for line in trained] == [False, False, True, True]
    assert "20.0%" in table_of(rows, STUDY).text()


def test_what_is_done_is_not_done_again(asked, tmp_path):
    lines, warpseg = asked
    first = StudySettings(name="partial", seeds=1, only="one")
    assert len(list(run_ways(STUDY, first, tmp_path / "work", warpseg))) == 1
    count = len(lines)
    rows = list(run_ways(STUDY, StudySettings(name="partial", seeds=1), tmp_path / "work", warpseg))
    assert [row["way"] for row in rows] == ["one", "other"]
    assert len(lines) == count + 1


@pytest.mark.parametrize("name", ["partial", "rare"])
def test_studies_name_recipes_and_data_that_exist(name):
    study = importlib.import_module(f"warpseg.benchmarks.studies.{name}").STUDY
    for way in study.ways.values():
        assert way.recipe in RECIPES
        assert way.data in study.data


def test_errors():
    with pytest.raises(ValueError, match="--seeds and --steps are 1 or more; got 0, 300"):
        StudySettings(name="rare", seeds=0)
