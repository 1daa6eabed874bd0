"""What the demo promises: with few masks, consistency beats cross-entropy, over three seeds."""

import json
import statistics

import pytest
from warpseg.__main__ import main


def score(method, data, out, seed):
    recipe = f"{method}-synthetic-swiftnet18-tiny"
    words = ["--data", data, "--split", "few", "--out", out, "--seed", seed]
    assert main(["train", recipe, *map(str, words)]) == 0
    return json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["miou"]


@pytest.mark.slow
def test_consistency_beats_supervised_with_eight_masks(tmp_path):
    data = tmp_path / "data"
    assert main(["convert", "synthetic", str(data)]) == 0
    assert main(["split", str(data), "few", "--labeled", "8", "--seed", "0"]) == 0
    gains = []
    for seed in range(3):
        scores = {
            method: score(method, data, tmp_path / f"{method}-{seed}", seed)
            for method in ("supervised", "consistency")
        }
        gains.append(scores["consistency"] - scores["supervised"])
    assert min(gains) > 0, gains
    assert statistics.fmean(gains) > 0.02, gains
