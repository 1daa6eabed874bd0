"""Drawn scenes: the same from a seed, varied, with masks that fit."""

from pathlib import Path

import numpy as np
import pytest
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.sources.scenes import CLASSES, DRAWING, draw_scene
from warpseg.shards.sources.synthetic import SyntheticSettings, load_synthetic


def scenes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    drawn = [draw_scene(np.random.default_rng([seed, i]), (64, 96)) for i in range(count)]
    return np.stack([image for image, _ in drawn]), np.stack([mask for _, mask in drawn])


def test_same_seed_same_scene() -> None:
    for one, two in zip(scenes(3), scenes(3), strict=True):
        assert np.array_equal(one, two)
    assert not np.array_equal(scenes(1)[0], scenes(1, seed=1)[0])


def test_form() -> None:
    images, masks = scenes(4)
    assert (images.shape, images.dtype) == ((4, 64, 96, 3), np.uint8)
    assert (masks.shape, masks.dtype) == ((4, 64, 96), np.uint8)
    assert masks.max() < len(CLASSES)


def test_every_class_is_common() -> None:
    _, masks = scenes(60)
    shares = np.bincount(masks.ravel(), minlength=len(CLASSES)) / masks.size
    assert 0.4 < shares[0] < 0.85
    assert (shares[1:] > 0.02).all()


def test_light_varies_more_than_classes_do() -> None:
    """Mean colours of scenes differ more than mean colours of classes: colour cannot decide."""
    images, masks = scenes(60)
    of_scenes = images.mean((1, 2)).std(0).mean()
    of_classes = np.stack([images[masks == c].mean(0) for c in range(1, len(CLASSES))])
    pairs = of_classes.reshape(-1, 3)
    nearest = [np.sort(np.abs(pairs - p).sum(1))[1] / 3 for p in pairs]
    assert of_scenes > 1.5 * np.mean(nearest)


def test_outlines_fit_the_picture() -> None:
    """Pixels change more across the borders of masks than elsewhere."""
    images, masks = scenes(20)
    change = np.abs(np.diff(images.astype(float), axis=2)).mean(-1)
    border = np.diff(masks.astype(int), axis=2) != 0
    assert change[border].mean() > 2 * change[~border].mean()


def test_conversion(tmp_path: Path) -> None:
    settings = SyntheticSettings(train=5, val=2, unlabeled=3, scene_size=(40, 48), seed=4)
    for name in "ab":
        convert(load_synthetic(settings), tmp_path / name, PackSettings(workers=1))
    assert (tmp_path / "a/train-000000.tar").read_bytes() == (
        tmp_path / "b/train-000000.tar"
    ).read_bytes()
    dataset = Dataset.open(tmp_path / "a")
    assert {name: len(dataset.subset(name)) for name in dataset.subsets} == {
        "train": 5,
        "val": 2,
        "unlabeled": 3,
    }
    assert dataset.subset("train").image_size == (40, 48)
    drawn = {name: s for name in dataset.subsets for s in dataset.subset(name).samples()}
    assert len({sample.read("png") for sample in drawn.values()}) == 3
    sample = dataset.subset("train").samples()[0]
    number = int(sample.name.split("/")[1])
    image, mask = draw_scene(np.random.default_rng([4, 0, number]), (40, 48))
    assert np.array_equal(sample.read_image(), image)
    assert np.array_equal(sample.read_mask(), mask)


def test_more_scenes_begin_with_the_same_ones(tmp_path: Path) -> None:
    few, more = (
        load_synthetic(SyntheticSettings(train=count, scene_size=(32, 32))) for count in (2, 4)
    )
    for entry in few.subsets["train"]:
        assert np.array_equal(few.read(entry)[0], more.read(entry)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"train": 0}, "at least 1 scene; got 0"), ({"scene_size": (16, 64)}, "at least 32 x 32")],
)
def test_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticSettings(**options)


def test_drawing_is_numbered() -> None:
    """These figures pin the drawing: whoever changes it raises DRAWING (and them)."""
    images, masks = scenes(8)
    assert DRAWING == 2
    assert masks.sum(dtype=np.int64) == pytest.approx(35799, rel=2e-3)
    assert images.mean() == pytest.approx(96.482, abs=0.1)


def test_scenes_at_dusk_are_dark_and_named(tmp_path: Path) -> None:
    """The day scenes, and all masks, are those of a set without dusk."""
    plain = load_synthetic(SyntheticSettings(train=8, val=1, scene_size=(48, 64)))
    source = load_synthetic(SyntheticSettings(train=8, val=1, scene_size=(48, 64), dusk=0.25))
    names = [entry.name for entry in source.subsets["train"]]
    dusk = [name for name in names if name.startswith("train/dusk_")]
    assert dusk == ["train/dusk_00003", "train/dusk_00007"]
    assert all(name.startswith("train/day_") for name in set(names) - set(dusk))
    pairs = zip(plain.subsets["train"], source.subsets["train"], strict=True)
    for before, now in pairs:
        (day, mask), (image, same) = plain.read(before), source.read(now)
        assert np.array_equal(mask, same)
        if now.name in dusk:
            assert image.mean() < 0.4 * day.mean()
            blue = [picture[..., 2].mean() / picture[..., 0].mean() for picture in (day, image)]
            assert blue[1] > 1.4 * blue[0]
        else:
            assert np.array_equal(image, day)
    convert(source, tmp_path, PackSettings(workers=1))
    assert Dataset.open(tmp_path).manifest.source["dusk"] == 0.25
