"""The committed form of the demo's scores."""

import json

from warpseg.benchmarks.demo import demo_result


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
    }
    made = demo_result({"evaluation": "whole", "data": "/home/me/data", "methods": [method]})
    assert made["methods"][0]["scores"] == [0.5, 0.6]
    assert made["methods"][0]["seconds"] == 12.3
    assert "/home" not in json.dumps(made)
