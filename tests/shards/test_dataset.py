"""Reading a converted data set, and the one sentence for each way it can be broken."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.sources.folder import MaskSettings, load_folder


def test_contents(dataset: Dataset, camvid_tree: Path) -> None:
    assert dataset.task == "segmentation"
    assert dataset.num_classes == 11
    assert dataset.classes[:2] == ("sky", "building")
    assert dataset.palette[3] == (128, 64, 128)
    assert dataset.subsets == ("train", "val")
    assert dataset.splits == ()
    train = dataset.subset("train")
    assert len(train) == 10
    assert train.has_masks
    assert train.image_size == (24, 32)
    assert [shard.tar.name for shard in train.shards] == ["train-000000.tar"]
    sample = train.samples()[4]
    assert sample.key == "00000004"
    assert sample.read(sample.extension) == (camvid_tree / sample.name).read_bytes()
    assert sample.read_image().shape == (24, 32, 3)
    assert sample.read_mask().dtype == np.uint8
    with pytest.raises(KeyError):
        sample.read("cls")


def test_images_alone(dataset: Dataset) -> None:
    images = dataset.subset("train-images")
    assert not images.has_masks
    assert [s.key for s in images.samples()] == [s.key for s in dataset.subset("train").samples()]
    assert all(set(sample.parts) == {"jpg"} for sample in images.samples())


def test_survives_pickling(dataset: Dataset) -> None:
    subset = pickle.loads(pickle.dumps(dataset.subset("val")))
    assert [s.read("jpg") for s in subset.samples()] == [
        s.read("jpg") for s in dataset.subset("val").samples()
    ]


def test_can_be_moved(dataset: Dataset, tmp_path: Path) -> None:
    dataset.root.rename(tmp_path / "elsewhere")
    assert Dataset.open(str(tmp_path / "elsewhere")).subset("val").samples()[0].read("seg.png")


def test_mixed_sizes(folder_tree: Path, tmp_path: Path, image: object, mask: object) -> None:
    image(folder_tree / "images" / "b.png", 1, (10, 12))  # type: ignore[operator]
    mask(folder_tree / "masks" / "b.png", 1, (0, 1), (10, 12))  # type: ignore[operator]
    convert(load_folder(folder_tree, MaskSettings()), tmp_path / "data", PackSettings(workers=1))
    train = Dataset.open(tmp_path / "data").subset("train")
    assert train.image_size is None
    for sample in train.samples():
        assert sample.size == sample.read_mask().shape == sample.read_image().shape[:2]
        assert (sample.size == (10, 12)) == (sample.name == "images/b.png")


def test_unknown_subsets_and_splits(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match=r"has no 'test', only train, val"):
        dataset.subset("test")
    with pytest.raises(ValueError, match=r"say which split's labeled is meant"):
        dataset.subset("labeled")
    with pytest.raises(FileNotFoundError, match=r"no split 'x' \(it has none yet\): make it with"):
        dataset.subset("labeled", "x")
    with pytest.raises(ValueError, match=r"labeled, unlabeled, all, held_out; got 'train'"):
        dataset.subset("train", "x")


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is no converted data set .*warpseg convert"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize("change", [b"", b"x", None])
def test_changed_tar(dataset: Dataset, change: bytes | None) -> None:
    tar = dataset.root / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-1024] if change is None else tar.read_bytes() + change)
    if change == b"":
        Dataset.open(dataset.root)
        return
    with pytest.raises(ValueError, match=r"train-000000\.tar was changed after conversion"):
        Dataset.open(dataset.root)


@pytest.mark.parametrize("name", ["val-000000.tar", "val-000000.idx"])
def test_missing_file(dataset: Dataset, name: str) -> None:
    (dataset.root / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"{name} is missing: run the same warpseg convert"
    ):
        Dataset.open(dataset.root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[1]", "is damaged"),
        ('{"version": 1, "subsets": {}}', "is damaged"),
        ('{"version": 9}', "has format 9, this program reads 1"),
    ],
)
def test_broken_manifest(dataset: Dataset, text: str, message: str) -> None:
    (dataset.root / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=rf"manifest\.json {message}.*convert the data set again"):
        Dataset.open(dataset.root)


def test_manifest_is_plain_json(dataset: Dataset) -> None:
    values = json.loads((dataset.root / "manifest.json").read_text())
    (shard,) = values["subsets"]["train"]["shards"]
    assert values["packing"]["encoding"] == "keep"
    assert values["source"]["kind"] == "camvid"
    assert len(shard["sha256"]) == 64
    assert sum(shard["counts"]) == 10 * 24 * 32
    assert shard["counts"][-1] > 0


Change = dict[str, object]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tar": "../home/authorized_keys"}, "is no name of a shard"),
        ({"tar": "/etc/train-000000.tar"}, "is no name of a shard"),
        ({"tar": "val-000000.tar"}, "is no name of a shard of train"),
        ({"tar": 5}, r"tar is 5, not a word"),
        ({"names": 5}, "names is 5, not a list"),
        ({"names": ["a\x1b"] * 10}, "control characters"),
        ({"names": ["a"]}, "counts the classes of 10 of its 1 images"),
        ({"sizes": [["a", "b"]]}, r"sizes\[0\]\[0\] is 'a', not a whole number"),
        ({"sizes": [[1, 1]] * 3}, "has 10 names and 3 sizes"),
        ({"first_key": "x"}, "first_key is 'x'"),
        ({"first_key": 3}, "begins with key 3, not 0"),
        ({"counts": [1]}, "counts 1 classes"),
        ({"labels": [99] * 10}, "has 10 labels"),
        ({"sha256": "x"}, "not a SHA-256"),
        ({"bytes": -1}, "bytes is -1"),
        ({"more": 1}, "unknown"),
    ],
)
def test_a_manifest_of_any_shape(dataset: Dataset, change: Change, words: str) -> None:
    path = dataset.root / "manifest.json"
    values = json.loads(path.read_text())
    values["subsets"]["train"]["shards"][0].update(change)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"manifest\.json is damaged \(.*{words}") as caught:
        Dataset.open(dataset.root)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("", "line 2 is ''"),
        ("jpg 512 100", "is damaged"),
        ("jpg x 100 00000000.jpg", "is damaged"),
        ("jpg 512 4611686018427387904 00000000.jpg", "is damaged"),
        ("jpg -5 100 00000000.jpg", "is damaged"),
        ("jpg 513 100 00000000.jpg", "is damaged"),
        ("jpg 512 100 99999999.jpg", "lists 99999999, which train-000000.tar has not"),
        ("jpg 512 100 00000001.jpg", "lists a sample twice"),
        ("seg.png 512 100 00000000.seg.png", "lists no image of 00000000"),
        ("jpg 512 100 ../../x.jpg", "is damaged"),
    ],
)
def test_an_index_of_any_shape(dataset: Dataset, row: str, words: str) -> None:
    path = dataset.root / "train-000000.idx"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([lines[0], row, *lines[2:]]))
    with pytest.raises(ValueError, match=rf"train-000000\.idx .*{words}"):
        dataset.subset("train").samples()


def test_an_index_that_lists_another_sample_s_mask(dataset: Dataset) -> None:
    """The tar says whose member it is: no image is trained with the mask of another."""
    path = dataset.root / "train-000000.idx"
    lines = path.read_text().split("\n")
    first, second = (line.split() for line in lines[1:3])
    first[5:7] = second[5:7]
    path.write_text("\n".join([lines[0], " ".join(first), *lines[2:]]))
    with pytest.raises(ValueError, match=r"does not hold 00000000\.seg\.png at byte"):
        dataset.subset("train").samples()[0].read_mask()
