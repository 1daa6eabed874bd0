"""The error of pseudo-labels by confidence, against counting by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from warpseg import IGNORE
from warpseg.__main__ import main
from warpseg.shards import Dataset
from warpseg.shards.manifest import load_manifest
from warpseg.shards.pseudo import PseudoLabel, encode_label, write_label_manifest, write_label_shard
from warpseg.trainers.charts import Curve, chart
from warpseg.trainers.engine.streams import with_masks
from warpseg.trainers.labels.errors import LabelErrors, count_errors

CLASSES = 7


def write_labels(scenes, out, subset="val"):
    """Write labels of which a third is wrong, some dropped; return mask, label, level of all."""
    dataset = Dataset.open(scenes)
    generator = np.random.default_rng(0)
    truth, made = [], []
    for sample in dataset.subset(subset).samples():
        mask = sample.read_mask()
        wrong = generator.random(mask.shape) < 1 / 3
        label = np.where(wrong, (mask + 1) % CLASSES, mask).astype(np.uint8)
        label[generator.random(mask.shape) < 0.1] = IGNORE
        level = generator.integers(0, 256, mask.shape).astype(np.uint8)
        truth.append(mask)
        made.append(PseudoLabel(sample.key, label, level))
    out.mkdir()
    shard = write_label_shard(out, 0, [encode_label(one, one.label, CLASSES) for one in made])
    records = load_manifest(scenes).subsets[subset].shards
    request = {
        "split": None,
        "subset": subset,
        "data_shards": {record.tar: record.sha256 for record in records},
    }
    write_label_manifest(out, [shard], {"request": request}, complete=True)
    return truth, made


def test_wrong_pixels_are_counted_by_confidence(scenes, tmp_path):
    truth, made = write_labels(scenes, tmp_path / "labels")
    errors = count_errors(Dataset.open(scenes), tmp_path / "labels")
    mask = np.stack(truth)
    label = np.stack([one.label for one in made])
    level = np.stack([one.confidence for one in made])
    known = (mask != IGNORE) & (label != IGNORE)
    for value in (0, 17, 254, 255):
        here = known & (level == value)
        assert errors.pixels[value] == here.sum()
        assert errors.wrong[value] == (here & (label != mask)).sum()
    assert errors.error == pytest.approx((label != mask)[known].mean())
    surest = errors.surest()
    assert surest[-1] == (1, pytest.approx(errors.error))
    assert surest[0][0] == pytest.approx((known & (level == 255)).sum() / known.sum())


def test_bins_hold_means_of_their_pixels():
    pixels, wrong = np.zeros((2, 256), np.int64)
    pixels[[100, 101, 255]], wrong[[100, 101, 255]] = [10, 30, 20], [5, 25, 0]
    errors = LabelErrors(pixels, wrong)
    lower, upper = errors.binned()
    assert lower == (pytest.approx((10 * 100 + 30 * 101) / 40 / 255), 30 / 40, 40)
    assert upper == (1, 0, 20)
    off = abs(10 / 40 - lower[0]) * 40 / 60
    assert errors.calibration_error == pytest.approx(off)


def test_the_verb_draws_and_tells(scenes, tmp_path, capsys):
    write_labels(scenes, tmp_path / "labels")
    words = ["diagnose", "labels", str(tmp_path / "labels"), "--data", str(scenes)]
    assert main([*words, "--out", str(tmp_path / "error.png")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0.2 < told["error"] < 0.45
    assert (tmp_path / "error.png").stat().st_size > 1000
    assert main(["diagnose"]) == 2
    assert main(["diagnose", "--help"]) == 0


def test_labels_of_images_without_masks_are_refused(scenes, tmp_path, monkeypatch):
    write_labels(scenes, tmp_path / "labels")
    monkeypatch.setattr("warpseg.trainers.labels.errors.with_masks", lambda *words, **options: None)
    with pytest.raises(ValueError, match="has no masks for the images of"):
        count_errors(Dataset.open(scenes), tmp_path / "labels")


def test_images_without_masks_are_left_out_where_others_have_one(scenes):
    dataset = Dataset.open(scenes)
    train, val = (dataset.subset(name) for name in ("train-images", "val-images"))
    mixed = replace(train, shards=train.shards + val.shards)
    assert with_masks(dataset, mixed) is None
    found = with_masks(dataset, mixed, partly=True)
    assert found is not None
    assert found.has_masks
    keys = {sample.key for sample in mixed.samples()}
    assert 0 < len(found) < len(mixed)
    assert {sample.key for sample in found.samples()} < keys


def test_a_chart_shows_each_curve_in_a_colour_of_its_own():
    curves = [Curve("rising", [(0, 0), (1, 1)]), Curve("falling", [(0, 1), (1, 0)], dashed=True)]
    picture = np.asarray(chart(curves, title="both", across="x", up="y"))
    for colour in ((0x1F, 0x77, 0xB4), (0xD6, 0x27, 0x28)):
        assert (abs(picture.astype(int) - colour).max(-1) < 12).sum() > 100
    with pytest.raises(ValueError, match="nothing to draw"):
        chart([], title="none", across="x", up="y")
