"""Masks of which a part is not labeled yet: read, stored, counted."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warpseg import IGNORE, UNLABELED
from warpseg.__main__ import main
from warpseg.shards import Dataset
from warpseg.shards.conversion.checking import check, class_table
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.labeling.drawn import DrawnSettings, drawn_source
from warpseg.shards.labeling.regions import Drawing, Polygon, Region
from warpseg.shards.manifest import load_manifest
from warpseg.shards.masks.values import id_values
from warpseg.shards.outside.files import LeftOut
from warpseg.shards.sources.folder import MaskSettings, load_folder

CLASSES = ("wall", "door")
VALUES = np.array([[0, 1, 200, 255], [200, 200, 0, 1]], np.uint8)
"""Two classes, 200 for not labeled yet, 255."""


def tree(root: Path, mask: np.ndarray = VALUES, lines: tuple[str, ...] = CLASSES) -> Path:
    """Write two images, the second of which is labeled whole."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for name, values in (("a", mask), ("b", mask[:, :2])):
        Image.new("RGB", values.shape[1::-1], (90, 80, 70)).save(root / "images" / f"{name}.png")
        Image.fromarray(values).save(root / "masks" / f"{name}.png")
    (root / "classes.txt").write_text("\n".join(lines))
    return root


def converted(root: Path, **settings: object) -> Dataset:
    source = load_folder(root, MaskSettings(**settings))  # type: ignore[arg-type]
    convert(source, root / "data", PackSettings(workers=1, shuffle=False))
    return Dataset.open(root / "data")


def stored(dataset: Dataset) -> np.ndarray:
    return dataset.subset("train").samples()[0].read_ids()


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (200, [[0, 1, UNLABELED, IGNORE], [UNLABELED, UNLABELED, 0, 1]]),
        (255, [[0, 1, IGNORE, UNLABELED], [IGNORE, IGNORE, 0, 1]]),
    ],
)
def test_a_value_means_not_labeled_yet(tmp_path: Path, value: int, wanted: list) -> None:
    dataset = converted(tree(tmp_path), unlabeled_value=value, ignore=(200,))
    assert stored(dataset).tolist() == wanted
    sample = dataset.subset("train").samples()[0]
    assert sample.read_mask().tolist() == np.where(np.array(wanted) > 1, IGNORE, wanted).tolist()


def test_other_ways_to_say_it(tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("0 1\n1 0\n200 unlabeled\n255 ignore\n")
    dataset = converted(tree(tmp_path / "ids"), id_map=tmp_path / "map.txt")
    assert stored(dataset)[0].tolist() == [1, 0, UNLABELED, IGNORE]
    colours = np.array([(9, 9, 9), (50, 60, 70), (1, 2, 3), (0, 0, 0)], np.uint8)
    places = np.select([VALUES == 1, VALUES == 200, VALUES == 255], [1, 2, 3], 0)
    lines = ("wall 9 9 9", "door 50 60 70", "not labeled 1 2 3", "ignore 0 0 0")
    root = tree(tmp_path / "colours", colours[places], lines)
    assert stored(converted(root, mask_values="palette"))[0].tolist() == [0, 1, UNLABELED, IGNORE]


def test_what_nobody_drew_may_be_unlabeled(tmp_path: Path) -> None:
    Image.new("RGB", (4, 2)).save(tmp_path / "a.png")
    square = np.array([(0, 0), (2, 0), (2, 2), (0, 2)], np.float64)
    drawing = Drawing("a.json", (Region("cat", (Polygon((square,)),)),), (2, 4))
    settings = DrawnSettings(rest="unlabeled")
    subsets: dict = {"train": {"a.png": drawing}}
    source = drawn_source("x", tmp_path, subsets, settings, LeftOut(), classes=("cat", "dog"))
    _, mask = source.read(source.subsets["train"][0])
    assert mask is not None
    assert mask.tolist() == [[0, 0, UNLABELED, UNLABELED]] * 2
    assert source.classes == ("cat", "dog")
    assert source.settings["rest"] == "unlabeled"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unlabeled_value": 1}, "--unlabeled-value 1 is the value of class 1"),
        ({"unlabeled_value": -1}, "take values from 0 to 65535"),
        ({"unlabeled_value": 3, "mask_values": "palette"}, "write `not labeled R G B` into"),
    ],
)
def test_errors(tmp_path: Path, settings: dict, message: str) -> None:
    lines = ("wall 9 9 9", "door 50 60 70")
    with pytest.raises(ValueError, match=message):
        converted(tree(tmp_path, lines=lines), **settings)


def test_as_many_classes_as_there_may_be() -> None:
    """253 classes, IGNORE and not labeled yet take all values but one: what is neither is seen."""
    values = id_values(253).with_unlabeled(400)
    raw = np.array([[0, 252, 255, 400]], np.uint16)
    assert values.map(raw, "m.png").tolist() == [[0, 252, IGNORE, UNLABELED]]
    with pytest.raises(ValueError, match="the value 253, which stands for no class"):
        values.map(np.array([[253]], np.uint16), "m.png")
    with pytest.raises(ValueError, match="254 classes leave no value for pixels not labeled yet"):
        id_values(254).with_unlabeled(400).map(raw, "m.png")


def test_the_manifest_counts_each_image(tmp_path: Path) -> None:
    dataset = converted(tree(tmp_path), unlabeled_value=200)
    (record,) = dataset.manifest.subsets["train"].shards
    assert record.class_counts == ("0:2 1:2 254:3 255:1", "0:1 1:1 254:2")
    assert record.counts == (3, 3, 1)
    assert dataset.partial == {"00000000", "00000001"}
    assert load_manifest(dataset.root) == dataset.manifest


def test_manifests_without_counts_are_read_as_they_were(tmp_path: Path) -> None:
    dataset = converted(tree(tmp_path), ignore=(200,))
    file = dataset.root / "manifest.json"
    values = json.loads(file.read_text())
    del values["subsets"]["train"]["shards"][0]["class_counts"]
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    file.write_text(text)
    old = Dataset.open(dataset.root)
    assert old.partial == frozenset()
    old.manifest.save(dataset.root)
    assert file.read_text() == text


def test_old_manifests_are_counted_once_and_on_demand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = converted(tree(tmp_path), ignore=(200,))
    file = dataset.root / "manifest.json"
    counted = file.read_text()
    values = json.loads(counted)
    del values["subsets"]["train"]["shards"][0]["class_counts"]
    file.write_text(json.dumps(values))
    old = Dataset.open(dataset.root)
    samples = old.subset("train").samples()
    assert old.class_counts(samples) == [{0: 2, 1: 2, 255: 4}, {0: 1, 1: 1, 255: 2}]
    assert dataset.class_counts(samples) == old.class_counts(samples)
    assert main(["check", str(dataset.root), "--workers", "1", "--count"]) == 0
    assert "classes of 2 masks counted" in capsys.readouterr().out
    assert file.read_text() == counted
    assert main(["check", str(dataset.root), "--workers", "1", "--count"]) == 0
    assert "classes of 0 masks counted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "fault"),
    [(["0:3"], "of 1 of its 2 images"), (["0:3", "1:a"], "as '1:a'"), (["0:3", ""], "as ''")],
)
def test_damaged_counts(tmp_path: Path, rows: list[str], fault: str) -> None:
    dataset = converted(tree(tmp_path), unlabeled_value=200)
    file = dataset.root / "manifest.json"
    values = json.loads(file.read_text())
    values["subsets"]["train"]["shards"][0]["class_counts"] = rows
    file.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=fault):
        Dataset.open(dataset.root)


def test_check_counts_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = converted(tree(tmp_path), unlabeled_value=200)
    results = check(dataset, workers=1)
    assert not results["train"].problems
    assert results["train"].pixels.tolist() == [3, 3, 1, 5]
    assert results["train"].images.tolist() == [2, 2, 1, 2]
    last = class_table(dataset, results).splitlines()[-1].split()
    assert last == ["254", "not", "labeled", "41.67%", "2"]
    assert main(["check", str(dataset.root), "--workers", "1"]) == 0
    assert "254 not labeled" in capsys.readouterr().out


def test_synthetic_scenes_are_those_of_whole_masks(tmp_path: Path) -> None:
    size = ["--train", "3", "--val", "1", "--unlabeled", "1", "--scene-size", "40", "48"]
    for name, more in (("whole", []), ("part", ["--labeled-share", "0.1"])):
        assert main(["convert", "synthetic", str(tmp_path / name), *size, *more]) == 0
    whole, part = (Dataset.open(tmp_path / name) for name in ("whole", "part"))
    assert not whole.partial
    assert len(part.partial) == 3
    for subset in ("train", "val"):
        pairs = zip(whole.subset(subset).samples(), part.subset(subset).samples(), strict=True)
        for one, other in pairs:
            assert (one.read_image() == other.read_image()).all()
            known = other.read_ids() != UNLABELED
            assert (one.read_mask() == other.read_ids())[known].all()
            assert known.mean() == pytest.approx(0.1 if subset == "train" else 1, abs=0.01)


def test_a_rare_class_has_its_share(tmp_path: Path) -> None:
    size = ["--train", "150", "--val", "1", "--scene-size", "64", "64", "--rare", "0.003"]
    assert main(["convert", "synthetic", str(tmp_path / "rare"), *size]) == 0
    dataset = Dataset.open(tmp_path / "rare")
    assert dataset.classes[7] == "marker"
    counts = np.sum([shard.counts for shard in dataset.manifest.subsets["train"].shards], 0)
    assert counts[7] / counts.sum() == pytest.approx(0.003, abs=0.0006)
