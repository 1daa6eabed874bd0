"""Spoiled masks, rankings of them, and the benchmark that finds them again."""

import json
import sys
import types

import numpy as np
import pytest
from warpseg import IGNORE
from warpseg.__main__ import main
from warpseg.benchmarks import commands
from warpseg.benchmarks.contenders.mask_ranking import average_precision, cleanlab, opinion_of, ours
from warpseg.benchmarks.measures.labels import masks as bench
from warpseg.benchmarks.spoiling import KINDS, choose_spoiled, spoil

NAMES = [f"image {number}" for number in range(60)]


def stripes(height=60, width=80):
    return np.broadcast_to(np.arange(width) * 4 // width, (height, width)).astype(np.uint8).copy()


def test_a_share_is_spoiled_by_all_kinds_in_turn():
    kinds = choose_spoiled(NAMES, 0.1, 0)
    assert len(kinds) == 6
    assert sorted(kinds.values()) == sorted(2 * KINDS)
    assert choose_spoiled(NAMES[::-1], 0.1, 0) == kinds
    assert choose_spoiled(NAMES, 0.1, 1).keys() != kinds.keys()
    assert len(choose_spoiled(NAMES, 0.001, 0)) == 1


def test_swapped_classes_are_swapped_whole():
    mask = stripes()
    mask[:5] = IGNORE
    made = spoil(mask, "swap", "x", 0)
    pairs = {(int(a), int(b)) for a, b in zip(mask.ravel(), made.ravel(), strict=True)}
    changed = {pair for pair in pairs if pair[0] != pair[1]}
    assert len(changed) == 2
    assert {pair[::-1] for pair in changed} == changed
    assert np.array_equal(made == IGNORE, mask == IGNORE)


def test_shifted_masks_are_shifted():
    mask = np.random.default_rng(0).integers(0, 9, (60, 80), dtype=np.uint8)
    made = spoil(mask, "shift", "x", 0)
    found = [
        (down, across)
        for down in range(-7, 8)
        for across in range(-10, 11)
        if np.array_equal(
            made[10:50, 15:65], mask[10 + down : 50 + down, 15 + across : 65 + across]
        )
    ]
    ((down, across),) = found
    assert 3 <= abs(down) <= 7
    assert 4 <= abs(across) <= 10


def test_holes_are_filled_with_other_classes():
    mask = stripes()
    made = spoil(mask, "holes", "x", 0)
    share = (made != mask).mean()
    assert 0.01 < share < 0.25
    assert set(np.unique(made)) <= set(np.unique(mask))


def test_masks_of_one_class_are_shifted_at_most():
    mask = np.full((20, 30), 2, np.uint8)
    for kind in KINDS:
        assert np.array_equal(spoil(mask, kind, "x", 0), mask)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_spoils_alike(kind):
    mask = stripes()
    made = spoil(mask, kind, "x", 0)
    assert not np.array_equal(made, mask)
    assert np.array_equal(made, spoil(mask, kind, "x", 0))
    assert any(not np.array_equal(made, spoil(mask, kind, "x", seed)) for seed in range(1, 5))


def test_average_precision_by_hand():
    wrong = np.array([True, False, True, False])
    assert average_precision(np.array([4, 3, 2, 1]), wrong) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.array([4, 1, 3, 2]), wrong) == 1
    assert average_precision(np.zeros(4), wrong) == pytest.approx((1 + 2 / 3) / 2)


def stored(tmp_path, count=12):
    """Write what a network says of stripes, and return masks of which the third is wrong."""
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(count, 4, 60, 80)) + 5 * (stripes() == np.arange(4)[:, None, None])
    prob = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.save(tmp_path / "p.npy", prob.astype(np.float32))
    masks = np.stack([stripes()] * count)
    masks[2, :20, :40] = 3
    masks[3, 0] = IGNORE
    return tmp_path / "p.npy", masks


def test_both_rankings_read_one_file(tmp_path, monkeypatch):
    file, masks = stored(tmp_path)
    made = ours(file, masks, 4)
    assert made.doubt.argmax() == 2
    assert 0 < made.bytes < file.stat().st_size
    seen = {}

    def rank(labels, pred_probs, **options):
        seen.update(options, labels=labels, probs=pred_probs)
        return np.arange(len(labels)) / len(labels), None

    package = types.ModuleType("cleanlab.segmentation.rank")
    package.get_label_quality_scores = rank
    for name in ("cleanlab", "cleanlab.segmentation"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, package.__name__, package)
    theirs = cleanlab(file, masks, "softmin", mapped=False)
    assert theirs.doubt.tolist() == (-np.arange(12) / 12).tolist()
    assert theirs.bytes > file.stat().st_size > made.bytes
    assert seen["method"] == "softmin"
    assert np.array_equal(seen["labels"][2], masks[2])
    # Pixels of no class say nothing: they have the network's own.
    assert np.array_equal(seen["labels"][3, 0], seen["probs"][3, :, 0].argmax(0))
    assert cleanlab(file, masks, "softmin", mapped=True).bytes < file.stat().st_size


def test_opinions_are_taken_from_probabilities():
    prob = np.array([[[0.7, 0.2]], [[0.3, 0.8]]], np.float32)
    made = opinion_of(prob, np.array([[1, IGNORE]], np.uint8))
    assert made.label.tolist() == [[0, 1]]
    assert made.sure.tolist() == [[pytest.approx(0.7), pytest.approx(0.8)]]
    assert made.given[0, 0] == pytest.approx(0.3)


def test_the_benchmark_runs_whole(tmp_path, capsys, monkeypatch):
    scenes = tmp_path / "scenes"
    size = ["--train", "12", "--val", "2", "--scene-size", "48", "48"]
    assert main(["convert", "synthetic", str(scenes), *size]) == 0
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    out = tmp_path / "masks.json"
    words = ["masks", str(scenes), "--work", str(tmp_path / "work"), "--size", "40", "48"]
    words += ["--recipe", "tiny-supervised", "--steps", "2", "--spoilings", "2", "--share", "0.25"]
    assert commands.bench([*words, "--device", "cpu", "--out", str(out)]) == 0
    assert "12 masks of 40 x 48, 25% of them spoiled" in capsys.readouterr().out
    result = json.loads(out.read_text())
    assert [row["ranking"] for row in result["rows"]] == ["warpseg", "warpseg"]
    assert all(0 < row["average_precision"] <= 1 for row in result["rows"])
    assert result["cleanlab"] is None
    (mean, each) = bench.tables(result)
    assert mean.rows[0][0] == each.rows[0][0] == "warpseg"
    # What is there is kept: another round trains nothing.
    marks = [(tmp_path / "work" / half / "metrics.jsonl").read_text() for half in bench.HALVES]
    assert commands.bench([*words, "--device", "cpu"]) == 0
    capsys.readouterr()
    for half, mark in zip(bench.HALVES, marks, strict=True):
        assert (tmp_path / "work" / half / "metrics.jsonl").read_text() == mark


def test_the_mean_is_of_what_is_known():
    assert bench._mean([0.5, None, 1.0]) == "0.750"
    assert bench._mean([None]) == "-"
