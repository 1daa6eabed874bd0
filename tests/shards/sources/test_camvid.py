"""The real CamVid."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warpseg import IGNORE
from warpseg.shards import Dataset
from warpseg.shards.commands.convert import convert
from warpseg.shards.commands.splits import split
from warpseg.shards.conversion.checking import check, check_splits


@pytest.fixture(scope="module")
def data(camvid_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("camvid") / "data"
    assert convert(["camvid", str(camvid_root), str(folder)]) == 0
    return folder


def test_images_are_the_sources_bytes(data: Path, camvid_root: Path) -> None:
    dataset = Dataset.open(data)
    assert {name: len(dataset.subset(name)) for name in dataset.subsets} == {
        "train": 367,
        "val": 101,
    }
    for subset in dataset.subsets:
        for sample in dataset.subset(subset).samples():
            assert sample.size == (360, 480)
            assert sample.read("jpg") == (camvid_root / sample.name).read_bytes()


def test_masks_are_the_sources_ids(data: Path, camvid_root: Path) -> None:
    for sample in Dataset.open(data).subset("val").samples()[::10]:
        file = camvid_root / "valannot" / f"{Path(sample.name).stem}.png"
        raw = np.asarray(Image.open(file))
        assert np.array_equal(sample.read_mask(), np.where(raw == 11, IGNORE, raw))


def test_twice_the_same_bytes(data: Path, camvid_root: Path, tmp_path: Path) -> None:
    convert(["camvid", str(camvid_root), str(tmp_path / "again"), "--workers", "1"])
    for file in data.glob("*.*"):
        other = tmp_path / "again" / file.name
        assert (
            hashlib.sha256(file.read_bytes()).digest()
            == hashlib.sha256(other.read_bytes()).digest()
        )


def test_second_call(data: Path, camvid_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(["camvid", str(camvid_root), str(data)]) == 0
    assert "is complete (367 train, 101 val): nothing to do" in capsys.readouterr().out


def test_split(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert split([str(data), "eighth", "--labeled", "1/8", "--seed", "0"]) == 0
    assert "eighth: 46 labeled, 321 unlabeled" in capsys.readouterr().out
    for index in (data / "splits" / "eighth").glob("*/*.idx"):
        assert ("seg.png" in index.read_text()) == (index.parent.name == "labeled")
    assert check_splits(Dataset.open(data)) == []


def test_check(data: Path) -> None:
    results = check(Dataset.open(data))
    assert [result.problems for result in results.values()] == [[], []]
    *classes, void, unlabeled = results["val"].images
    assert classes == [101] * 11
    assert (void, unlabeled) == (101, 0)
    assert results["train"].pixels.sum() == 367 * 360 * 480
