"""The demo's scores: their committed form, and where pages state them."""

import json
import re
from pathlib import Path

from warpseg.benchmarks.demo import COMMAND, demo_result
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


def test_pages_state_the_committed_scores():
    alone, both = json.loads((RESULTS / "demo-cpu.json").read_text())["methods"]
    assert alone["seeds"] == both["seeds"] == [0, 1, 2]
    assert both["mean"] - both["std"] > alone["mean"] + alone["std"]
    means = [f"{100 * method['mean']:.1f}" for method in (alone, both)]
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"[{means[0]} and {means[1]} % mIoU](docs/scores.md)" in readme
    page = (ROOT / "docs" / "scores.md").read_text()
    for method, mean in zip((alone, both), means, strict=True):
        each = ", ".join(f"{100 * score:.1f}" for score in method["scores"])
        groups = " | ".join(f"{100 * method['groups'][name]:.1f}" for name in ("day", "dusk"))
        assert f"| `{method['recipe']}` | {each} | {mean} | {groups} |" in page


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
