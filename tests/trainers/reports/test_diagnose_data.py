"""Images that are there twice, what crops lose, and the command that looks for both."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from warpseg.__main__ import main
from warpseg.pipelines.settings import GeometrySettings
from warpseg.pipelines.views.geometry import draw_window
from warpseg.shards import Dataset
from warpseg.trainers.reports.diagnoses import likeness
from warpseg.trainers.reports.diagnoses.crops import CROPS, look_at_crops
from warpseg.trainers.reports.diagnoses.data import look_at_data
from warpseg.trainers.reports.diagnoses.likeness import find_alike, hash_of

CHANGES = {
    "same": lambda image: image,
    "encoded": lambda image: encoded(image, 60),
    "smaller": lambda image: image.resize((150, 100)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}
"""What is done to a training image before it is scored on."""


def encoded(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def scene(seed):
    """Draw some soft blobs, as photographs have."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((240, 160), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """Return a data set of 12 training images; five of eight that are scored on are among them.
    Class 1 is a dot in a corner, class 2 is nowhere."""
    root = tmp_path_factory.mktemp("twice")
    mask = np.zeros((160, 240), np.uint8)
    mask[:3, :3] = 1
    val = [(f"val/{n}", c(scene(i))) for i, (n, c) in enumerate(CHANGES.items())]
    val += [(f"val/new{seed}", scene(seed)) for seed in (100, 101, 102)]
    for name, image in [*((f"./{seed}", scene(seed)) for seed in range(12)), *val]:
        folder, stem = name.split("/")
        for kind in ("images", "masks"):
            (root / "mine" / folder / kind).mkdir(parents=True, exist_ok=True)
        image.save(root / "mine" / folder / "images" / f"{stem}.png")
        small = Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST)
        small.save(root / "mine" / folder / "masks" / f"{stem}.png")
    (root / "mine" / "classes.txt").write_text("ground\ndot\nnever\n")
    assert main(["convert", "folder", str(root / "mine"), str(root / "data")]) == 0
    return Dataset.open(root / "data")


def pairs(found):
    return {(p.trained.name.split("/")[-1], p.scored.name.split("/")[-1]) for p in found}


def test_alike_images_are_found_and_no_others(twice):
    scored = twice.subset("val").samples()
    found, count, keys = find_alike(twice.subset("train").samples(), scored)
    assert pairs(found) == {(f"{i}.png", f"{name}.png") for i, name in enumerate(CHANGES)}
    assert (count, len(keys)) == (5, 5)
    assert [p.mirrored for p in found if p.scored.name.endswith("mirrored.png")] == [True]
    assert found[0].correlation == pytest.approx(1, abs=1e-3)
    assert find_alike(twice.subset("train").samples(), []) == ([], 0, set())
    assert find_alike(scored, scored) == ([], 0, set())  # none is paired with itself


def test_only_the_most_alike_pairs_are_kept(twice, monkeypatch):
    every, _, _ = find_alike(twice.subset("train").samples(), twice.subset("val").samples())
    monkeypatch.setattr(likeness, "MOST_PAIRS", 2)
    found, count, keys = find_alike(twice.subset("train").samples(), twice.subset("val").samples())
    assert (pairs(found), count, len(keys)) == (pairs(every[:2]), 5, 5)


def test_images_of_one_level_are_like_nothing(twice, monkeypatch):
    monkeypatch.setattr(likeness, "_small", lambda _: np.full((64, 64), 90, np.uint8))
    samples = twice.subset("val").samples()
    assert find_alike(samples, samples) == ([], 0, set())


def test_a_hash_is_of_gradients():
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    assert np.bitwise_count(hash_of(ramp)).tolist() == [64, 0]
    assert np.bitwise_count(hash_of(ramp.T.copy())).tolist() == [0, 64]


def test_crops_are_counted_as_they_are_cut(twice):
    samples = twice.subset("train").samples()[:3]
    geometry = GeometrySettings(crop_size=(96, 64), scale=(0.5, 1.0), resize=(80, 240))
    made = look_at_crops(samples, 3, geometry, seed=5)
    draw, shown, counts = np.random.default_rng(5), [], np.zeros(2)
    seen = []
    for sample in samples:
        mask = sample.read_mask()
        for _ in range(CROPS):
            window = draw_window(geometry, sample.size, draw.random(4))
            rows, columns = window.nearest()
            part = mask[np.ix_(rows, columns)]
            counts += [(part == 0).sum(), (part == 1).sum()]
            shown.append((part == 1).any())
            top, left, bottom, right = window.region
            seen.append((bottom - top) * (right - left) / mask.size)
    assert (made.images, made.crops) == (3, 24)
    assert made.kept[0] == 1
    assert made.kept[1] == pytest.approx(np.mean(shown))
    assert np.isnan(made.kept[2])
    assert made.crop_pixels[:2] == pytest.approx(counts / counts.sum())
    assert made.pixels[1] == pytest.approx(9 / (160 * 240))
    assert made.seen == pytest.approx(np.mean(seen))
    assert made.squash == pytest.approx(2, rel=0.05)
    assert made.padding > 0.1
    with pytest.raises(ValueError, match="no images with masks"):
        look_at_crops([], 3, geometry)


def test_findings_are_said(twice):
    geometry = GeometrySettings(crop_size=(32, 32), scale=(0.9, 1.1), resize=(160, 120))
    said = " / ".join(look_at_data(twice, "any", geometry).said)
    assert "5 of 8 images that are scored on look like images that are trained on" in said
    assert "no pixel of train is of class never" in said
    assert "a crop shows 5 % of its image" in said
    assert "images are stretched by 2.00 along one side" in said
    assert "dot is in" in said
    usual = look_at_data(twice, "any", GeometrySettings(crop_size=(128, 128), scale=(0.9, 1.1)))
    assert "stretched" not in " / ".join(usual.said)


def test_scored_images_that_are_alike_are_said(tmp_path):
    for name, seed in {
        "images/a": 0,
        "val/images/b": 5,
        "val/images/c": 5,
        "val/images/d": 6,
    }.items():
        file = tmp_path / "mine" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        scene(seed).save(file)
        mask = file.parents[1] / "masks" / file.name
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(160, 240, dtype=np.uint8)).save(mask)
    (tmp_path / "mine" / "classes.txt").write_text("a\nb\n")
    assert main(["convert", "folder", str(tmp_path / "mine"), str(tmp_path / "data")]) == 0
    said = look_at_data(Dataset.open(tmp_path / "data"), "", None).said
    assert said == [
        "2 of 3 images that are scored on look like others of them: the score rests on fewer "
        "images than that"
    ]


def test_the_command_writes_page_and_lists(twice, tmp_path, capsys):
    words = ["diagnose", "data", str(twice.root), "--out", str(tmp_path)]
    assert main([*words, "--recipe", "supervised-synthetic-swiftnet18-tiny"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["alike"] == 5
    assert len((tmp_path / "alike.csv").read_text().splitlines()) == 6
    told = json.loads((tmp_path / "data.json").read_text())
    assert told["crops"]["squash"] == pytest.approx(1, rel=0.02)
    text = (tmp_path / "data.html").read_text()
    assert text.count("data:image/jpeg;base64,") == 5
    crop = ["--geometry.crop-size", "32", "32"]
    assert main([*words, *crop]) == 1
    assert "name it with --recipe" in capsys.readouterr().err
    assert main([*words, "--recipe", "supervised-synthetic-swiftnet18-tiny", *crop]) == 0
    assert json.loads((tmp_path / "data.json").read_text())["crops"]["seen"] < 0.1
    capsys.readouterr()


def test_whole_images_with_a_class_are_refused(pictures, tmp_path, capsys):
    assert main(["diagnose", "data", str(pictures), "--out", str(tmp_path)]) == 1
    assert "no masks to look at" in capsys.readouterr().err
