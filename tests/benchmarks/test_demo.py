"""The demo's scores: their committed form, and where pages state them."""

import json
import re
import shutil
from pathlib import Path

import pytest
from warpseg.benchmarks.demo import COMMAND, demo_result, state
from warpseg.benchmarks.measures.report import RESULTS

ROOT = Path(__file__).parents[2]


def test_scores_are_kept_and_paths_are_not():
    method = {
        "method": "supervised",
        "recipe": "supervised-synthetic-swiftnet18-tiny",
        "metric": "miou",
        "steps": 300,
        "seeds": [0, 1],
        "scores": [0.5, 0.6],
        "mean": 0.55,
        "std": 0.07,
        "difference": 0.0,
        "seconds": 12.345,
        "iou": {"a": 0.5},
        "groups": {"day": 0.6},
    }
    made = demo_result({"evaluation": "whole", "data": "/home/me/data", "methods": [method]})
    assert made["methods"][0]["scores"] == [0.5, 0.6]
    assert made["methods"][0]["seconds"] == 12.3
    assert made["methods"][0]["groups"] == {"day": 0.6}
    assert "/home" not in json.dumps(made)


def test_pages_state_the_committed_scores(tmp_path):
    """If not: `make demo-scores`, which writes them."""
    result = json.loads((RESULTS / "demo-cpu.json").read_text())
    alone, both = result["methods"]
    assert alone["seeds"] == both["seeds"]
    assert both["mean"] - (both["std"] or 0) > alone["mean"] + (alone["std"] or 0)
    (tmp_path / "docs").mkdir()
    for page in ("README.md", "docs/scores.md"):
        shutil.copy(ROOT / page, tmp_path / page)
    state(result, tmp_path)
    for page in ("README.md", "docs/scores.md"):
        assert (tmp_path / page).read_text() == (ROOT / page).read_text()
    alone["mean"], both["groups"]["dusk"] = 0.123, 0.456
    state(result, tmp_path)
    assert "[12.3 and " in (tmp_path / "README.md").read_text()
    assert " | 45.6 |\n" in (tmp_path / "docs" / "scores.md").read_text()
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(ValueError, match=r"README\.md has 0 places for"):
        state(result, tmp_path)


def test_the_command_is_that_of_make_demo():
    """Of `make demo` and `make demo-scores`, whose variables are spelt out here."""
    made = (ROOT / "Makefile").read_text()
    held = dict(re.findall(r"^([A-Z]+) := (.*)$", made, re.M))
    spelt = made
    for _ in held:
        for name, value in held.items():
            spelt = spelt.replace(f"$({name})", value)
    spelt = spelt.replace(".venv/bin/", "")
    compared, converted, split = re.split(r"; data: |; split: ", COMMAND)
    assert f"\t{compared}\n" in spelt
    assert f"\t{converted}\n" in spelt
    assert f"\twarpseg split demo/data day {split}\n" in spelt
