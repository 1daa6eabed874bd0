"""The committed form of the demo's scores."""

import json
from pathlib import Path

from warpseg.benchmarks.demo import demo_result
from warpseg.trainers.recipes.registry import RECIPES

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "demo-cpu.json"


def test_scores_are_kept_and_paths_are_not():
    method = {
        "method": "supervised",
        "recipe": "supervised-synthetic-swiftnet-lite0-demo",
        "metric": "miou",
        "steps": 300,
        "seeds": [0, 1],
        "scores": [0.5, 0.6],
        "mean": 0.55,
        "std": 0.07,
        "difference": 0.0,
        "seconds": 12.345,
        "iou": {"a": 0.5},
    }
    made = demo_result({"evaluation": "whole", "data": "/home/me/data", "methods": [method]})
    assert made["methods"][0]["scores"] == [0.5, 0.6]
    assert made["methods"][0]["seconds"] == 12.3
    assert "/home" not in json.dumps(made)


def test_the_committed_scores_are_of_the_demo():
    held = json.loads(RESULT.read_text())
    assert held["kind"] == "demo"
    for method in held["methods"]:
        assert method["recipe"] in RECIPES
        assert method["steps"] == RECIPES[method["recipe"]]().num_steps
        assert method["seeds"] == [0, 1, 2]
