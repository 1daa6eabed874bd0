"""Six channels of 16 bits from files to predictions, by the commands."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image
from warpseg.__main__ import main
from warpseg.shards import Dataset
from warpseg.shards.bands.geo import geo_of
from warpseg.trainers.runs.kept.data import data_of
from warpseg.trainers.runs.kept.opening import open_trained

SIZE, CHANNELS = (48, 64), 6
GEO = {33550: (10.0, 10.0, 0.0), 33922: (0.0, 0.0, 0.0, 4e5, 5.3e6, 0.0), 34735: (1, 1, 0, 0)}


def scene(seed):
    """A field of which channels 2 and 3 alone tell the class."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SIZE, np.uint8)
    top, left = rng.integers(0, SIZE[0] - 24), rng.integers(0, SIZE[1] - 24)
    mask[top : top + 24, left : left + 24] = 1
    image = rng.integers(300, 900, (*SIZE, CHANNELS))
    image[mask == 1, 2:4] += 1500
    return image.astype(np.uint16), mask


def write(path, image, geo=None):
    tags = [(code, 3 if code == 34735 else 12, len(v), v) for code, v in (geo or {}).items()]
    tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig", extratags=tags)


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    root = tmp_path_factory.mktemp("fields")
    for below, count in (("in", 8), ("in/val", 3)):
        for folder in ("images", "masks"):
            (root / below / folder).mkdir(parents=True)
        for number in range(count):
            image, mask = scene(number + 100 * (below != "in"))
            write(root / below / "images" / f"{number}.tif", image, GEO)
            Image.fromarray(mask).save(root / below / "masks" / f"{number}.png")
    (root / "in" / "classes.txt").write_text("ground\ncrop\n")
    return root


def succeed(*words):
    assert main([str(word) for word in words]) == 0


def test_six_channels_of_16_bits_end_to_end(fields, tmp_path, capsys, caplog, monkeypatch):
    data, run = tmp_path / "data", tmp_path / "run"
    succeed("convert", "folder", fields / "in", data, "--workers", 1)
    assert "shards, images of 6 channels of 16 bits" in capsys.readouterr().out
    succeed("check", data, "--workers", 1)
    succeed("split", data, "half", "--labeled", "1/2")
    channels = Dataset.open(data).channels
    assert channels.kind == (CHANNELS, 16)
    assert channels.high[2] > 2000 > 1000 > channels.high[0]
    small = ["--batch-size", 2, "--unlabeled-batch-size", 2, "--geometry.crop-size", 32, 32]
    small += ["--network.name", "tiny", "--network.weights", "none", "--device", "cpu"]
    small += ["--loader.threads", 1, "--checkpoint-every", 20, "--num-steps", 40]
    recipe = ["train", "fixmatch-synthetic-swiftnet18-tiny", "--data", data, "--split", "half"]
    view = ["--strong.view", "channels", "--optimizer.lr", "3e-3"]
    succeed(*recipe, "--out", run, *small, *view)
    said = caplog.text + "".join(capsys.readouterr())
    assert "6 channels of 16 bits" in said
    assert "portable loader" in said

    trained = open_trained(run)
    assert trained.channels == channels
    assert trained.options["in_channels"] == CHANNELS
    assert trained.normalization.mean[0] == channels.mean[0] / 65535
    succeed("evaluate", run, "--device", "cpu")
    score = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert score["miou"] > 0.6

    out = tmp_path / "out"
    succeed("predict", run, fields / "in" / "val" / "images", "--out", out, "--device", "cpu")
    hits = 0.0
    for number in range(3):
        file = out / "masks" / f"{number}.tif"
        assert geo_of(file) == GEO
        hits += (tifffile.imread(file) == scene(number + 100)[1]).mean() / 3
        assert (out / "overlays" / f"{number}.jpg").is_file()
    assert hits == pytest.approx(score["pixel_accuracy"], abs=1e-6)
    again = trained.predict(scene(100)[0])
    np.testing.assert_array_equal(again, tifffile.imread(out / "masks" / "0.tif"))

    sheet = ["show", data, "--recipe", "fixmatch-synthetic-swiftnet18-tiny", "--split", "half"]
    succeed(*sheet, "--view", "chtps", "--samples", 2, "--out", tmp_path / "sheet.png")
    capsys.readouterr()
    graph = ["--graph", "pt2", "--graph-size", *SIZE]
    succeed("export", run, "--out", tmp_path / "export", *graph)
    said = capsys.readouterr().out
    assert "48 x 64 pixels, 6 channels, as trained on, uint16 (N, H, W, 6)" in said
    words = ["label.py", str(fields / "in" / "val" / "images" / "0.tif"), str(tmp_path / "0.png")]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "export"), *sys.path])
    exec((tmp_path / "export" / "label.py").read_text(), {})
    labeled = np.asarray(Image.open(tmp_path / "0.png"))
    assert (labeled == tifffile.imread(out / "masks" / "0.tif")).mean() > 0.99
    exported = open_trained(tmp_path / "export")
    assert exported.channels == channels
    np.testing.assert_array_equal(exported.predict(scene(100)[0]), again)
    told = json.loads((tmp_path / "export" / "config.json").read_text())
    assert told["facts"]["input"]["order"] == "6 channels, as trained on"


def test_other_images_are_refused_in_words(fields, tmp_path, capsys):
    data, run = tmp_path / "data", tmp_path / "run"
    succeed("convert", "folder", fields / "in", data, "--workers", 1)
    words = ["train", "supervised-synthetic-swiftnet18-tiny", "--data", data, "--out", run]
    words += ["--network.name", "tiny", "--device", "cpu", "--loader.threads", 1]
    words += ["--geometry.crop-size", 32, 32, "--batch-size", 2, "--num-steps", 1]
    for more, said in (
        (["--network.options", "in_channels=4"], "have 6 channels of 16 bits: leave it out"),
        (["--normalization.mean", "0.1", "--normalization.std", "0.1"], "has 1 numbers"),
    ):
        assert main([str(word) for word in (*words, *more)]) == 1
        assert said in capsys.readouterr().err
    succeed(*words)
    write(tmp_path / "eight.tif", np.zeros((40, 40, 6), np.uint8))
    Image.new("RGB", (40, 40)).save(tmp_path / "rgb.png")
    for name, said in (
        ("eight.tif", "has 6 channels of 8 bits, and the network was trained on 6 channels of 16"),
        ("rgb.png", "has 3 channels of 8 bits, and the network was trained on 6 channels of 16"),
    ):
        for windows in ("never", "always"):
            out = tmp_path / f"{name}-{windows}"
            asked = ["predict", run, tmp_path / name, "--out", out, "--windows", windows]
            assert main([str(word) for word in (*asked, "--device", "cpu")]) == 1
            assert said in capsys.readouterr().err


def test_a_network_of_rgb_scores_rgb_alone(fields, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    succeed("convert", "folder", fields / "in", data, "--workers", 1)
    words = ["--network.name", "tiny", "--device", "cpu", "--loader.threads", 1, "--num-steps", 1]
    words += ["--geometry.crop-size", 32, 32, "--batch-size", 2, "--out", run]
    succeed("train", "supervised-synthetic-swiftnet18-tiny", "--data", data, *words)
    trained = open_trained(run)
    with pytest.raises(ValueError, match="on images of 3 channels of 8 bits, and those of"):
        data_of(replace(trained, channels=None), data)


def test_a_run_goes_on_with_the_same_bits(fields, tmp_path):
    data = tmp_path / "data"
    succeed("convert", "folder", fields / "in", data, "--workers", 1)
    words = ["train", "supervised-phtps-synthetic-swiftnet18-tiny", "--data", data]
    words += ["--network.name", "tiny", "--device", "cpu", "--loader.threads", 1, "--log-every", 1]
    words += ["--geometry.crop-size", 32, 32, "--batch-size", 2, "--augmentation.view", "chtps"]
    words += ["--num-steps", 4, "--checkpoint-every", 2, "--keep-checkpoints"]
    succeed(*words, "--out", tmp_path / "whole")
    succeed(*words, "--out", tmp_path / "stopped")
    kept = sorted((tmp_path / "stopped" / "checkpoints").iterdir())[0]
    kept.replace(tmp_path / "stopped" / "checkpoint.pt")
    succeed(*words, "--out", tmp_path / "stopped", "--resume")
    rows = [
        [
            {key: row.get(key) for key in ("step", "losses", "miou")}
            for row in map(json.loads, (tmp_path / out / "metrics.jsonl").read_text().splitlines())
        ]
        for out in ("whole", "stopped")
    ]
    assert rows[0] == rows[1]


def test_features_are_of_all_channels(fields, tmp_path):
    """From features a run has the losses of live training, whatever channels the images have; its
    masks are drawn with what pictures show of them."""
    data = tmp_path / "data"
    succeed("convert", "folder", fields / "in", data, "--workers", 1)
    words = ["supervised-synthetic-swiftnet18-tiny", "--data", data, "--device", "cpu"]
    words += ["--network.name", "tiny", "--network.freeze", "backbone", "--loader.threads", 1]
    words += ["--geometry.crop-size", 32, 32, "--batch-size", 2]
    kept = tmp_path / "features"
    succeed("features", *words, "--views", 1, "--encoding", "float32", "--out", kept)
    words += ["--num-steps", 2, "--log-every", 1]
    succeed("train", *words, "--out", tmp_path / "live")
    succeed("train", *words, "--out", tmp_path / "cached", "--features", kept)
    losses = [
        [
            row["losses"]
            for row in map(json.loads, (tmp_path / run / "metrics.jsonl").read_text().splitlines())
            if "losses" in row
        ]
        for run in ("live", "cached")
    ]
    assert len(losses[0]) == 2
    assert losses[0] == losses[1]
    doubted = tmp_path / "doubted"
    succeed("diagnose", "masks", tmp_path / "cached", "--out", doubted, "--device", "cpu")
    assert (doubted / "masks.png").is_file()
