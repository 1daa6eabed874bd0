"""Comparisons: what is trained, what is left alone, the table and the page."""

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from warpseg.trainers.commands.compare import CompareSettings, compare, list_candidates
from warpseg.trainers.engine.settings import RunSettings
from warpseg.trainers.recipes.registry import RECIPES
from warpseg.trainers.reports.comparison import Comparison
from warpseg.trainers.reports.comparison_page import _evenly, page
from warpseg.trainers.runs import candidates
from warpseg.trainers.runs.candidates import seed_words
from warpseg.trainers.runs.kept.record import load_run

TINY = Path(__file__).parents[1] / "tiny.py"
sys.path.insert(0, str(TINY.parent))
from running import write_run  # noqa: E402
from tiny import METHOD_RECIPES, tiny_recipe  # noqa: E402


@pytest.fixture
def tiny_recipes(monkeypatch):
    for short in ("supervised", "consistency"):
        made = tiny_recipe(METHOD_RECIPES[short])
        monkeypatch.setitem(RECIPES, f"tiny-{short}", lambda made=made: made)
    monkeypatch.setattr(candidates, "PROGRAM", (sys.executable, str(TINY)))


def test_a_comparison_trains_what_is_missing_and_nothing_twice(
    scenes, tmp_path, tiny_recipes, capsys, monkeypatch
):
    out = tmp_path / "out"
    words = ["tiny-supervised", "tiny-consistency", "--data", str(scenes), "--split", "few"]
    words += ["--out", str(out), "--jobs", "2", "--images", "2", "--num-steps", "3"]
    assert compare(words) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[2:4]] == [
        "tiny-supervised",
        "tiny-consistency",
    ]
    made = json.loads((out / "comparison.json").read_text())
    first, second = made["methods"]
    assert first["steps"] == second["steps"] == 3
    assert second["difference"] == second["mean"] - first["mean"]
    assert second["seconds"] > 0
    assert second["iou"].keys() == first["iou"].keys()
    text = (out / "comparison.html").read_text()
    assert text.count("data:image/png;base64,") == 1
    assert (out / "pictures.png").is_file()

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(candidates, "_start", never)
    assert compare(words) == 0
    with pytest.raises(ValueError, match=r"seed-0 holds a run of other settings .*num_steps"):
        compare([*words[:-1], "4"])


def test_a_failed_training_is_told_with_its_last_words(scenes, tmp_path, tiny_recipes, monkeypatch):
    cry = (sys.executable, "-c", "import sys; sys.exit('no disk')")
    monkeypatch.setattr(candidates, "PROGRAM", cry)
    words = ["tiny-supervised", "--data", str(scenes), "--out", str(tmp_path / "out")]
    with pytest.raises(RuntimeError, match=r"tiny-supervised seed-0 failed: no disk \(log .*log\)"):
        compare(words)


def test_settings_hold_for_all_recipes_and_seeds_differ(tmp_path, tiny_recipes):
    settings = CompareSettings(data=tmp_path, out=tmp_path / "out", seeds=(3, 5), split="few")
    made = list_candidates(["tiny-supervised"], settings, ["--num-steps", "7"])
    assert [candidate.settings.seed for candidate in made] == [3, 5]
    assert {candidate.settings.num_steps for candidate in made} == {7}
    assert made[1].folder == tmp_path / "out" / "tiny-supervised" / "seed-5"
    assert made[1].words[-2:] == ("--split", "few")
    with pytest.raises(ValueError, match="say --seeds instead"):
        list_candidates(["tiny-supervised"], settings, ["--seed", "1"])
    with pytest.raises(SystemExit):
        list_candidates(["tiny-supervised"], settings, ["--no-such-setting", "1"])


def test_rounds_give_each_run_that_they_hold_the_seed():
    @dataclass(frozen=True, kw_only=True)
    class TwoPhases:
        teacher: RunSettings = field(default_factory=RunSettings)
        count: int = 2
        last_student: RunSettings = field(default_factory=RunSettings)

    words = seed_words(TwoPhases(), 4)
    assert words == ["--teacher.seed", "4", "--last-student.seed", "4"]
    assert seed_words(RunSettings(), 4) == ["--seed", "4"]


def test_the_table_compares_means_with_the_first(tmp_path):
    runs = {}
    for recipe, scores in (("a-b-tiny", (0.4, 0.6)), ("c-tiny", (0.7, 0.5))):
        runs[recipe] = [
            load_run(write_run(tmp_path / recipe / f"seed-{seed}", seed=seed, scores=(score,)))
            for seed, score in enumerate(scores)
        ]
    comparison = Comparison(runs)
    assert comparison.names() == {"a-b-tiny": "a-b", "c-tiny": "c"}
    first, second = comparison.cells()
    assert first == ("a-b", "2", "50.00", "14.14", "-", "1.5", "10.0", "1.00")
    assert second == ("c", "2", "60.00", "14.14", "+10.00", "1.5", "10.0", "1.00")
    assert comparison.class_iou("c-tiny") == {"road": pytest.approx(0.6), "sky & <sea>": None}
    text = page(comparison)
    assert text.count('class="key"') == 2
    # Runs of one method share its colour.
    assert len(set(re.findall(r'<circle [^>]*fill="(#\w+)"', text))) == 2
    assert "<td>+10.00</td>" in text


def test_a_single_name_is_kept_whole(tmp_path):
    run = load_run(write_run(tmp_path / "seed-0"))
    assert Comparison({"a-tiny": [run]}).names() == {"a-tiny": "a-tiny"}
    assert Comparison({"a-tiny": [run]}).cells()[0][3] == "-"


def test_user_errors(tmp_path):
    with pytest.raises(ValueError, match="takes one RECIPE or more"):
        compare(["--data", "d", "--out", "o"])
    folders = {"data": tmp_path, "out": tmp_path / "out"}
    with pytest.raises(ValueError, match="--jobs must be at least 1; got 0"):
        CompareSettings(**folders, jobs=0)
    with pytest.raises(ValueError, match="different numbers"):
        CompareSettings(**folders, seeds=(1, 1))
    with pytest.raises(ValueError, match="--images must be 0 or more"):
        CompareSettings(**folders, images=-1)


def test_few_steps_shorten_a_warmup_that_would_fill_them(tmp_path):
    recipes = ["gta-synthetic-swiftnet18-tiny", "supervised-synthetic-swiftnet18-tiny"]
    settings = CompareSettings(data=tmp_path, out=tmp_path / "out")
    for words in (["--num-steps", "100"], ["--num_steps=100"]):
        gta, supervised = list_candidates(recipes, settings, words)
        assert (gta.settings.num_steps, gta.settings.warmup_steps) == (100, 25)
        assert "--warmup-steps" in gta.words
        assert supervised.settings.num_steps == 100
        assert "--warmup-steps" not in supervised.words
    (gta,) = list_candidates(recipes[:1], settings, ["--num-steps", "201"])
    assert gta.settings.warmup_steps == 200
    assert "--warmup-steps" not in gta.words
    (gta,) = list_candidates(recipes[:1], settings, ["--num-steps", "100", "--warmup-steps", "7"])
    assert gta.settings.warmup_steps == 7


def test_every_image_is_drawn_once_where_more_are_asked_for():
    assert _evenly([0, 1, 2], 6) == [0, 1, 2]
    assert _evenly(list(range(8)), 4) == [0, 2, 4, 6]
    assert _evenly([], 4) == []
