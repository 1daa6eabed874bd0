"""COCO-Stuff: 171 classes without the labels that no image shows, or 81."""

import numpy as np
import pytest
from PIL import Image
from warpseg import IGNORE
from warpseg.__main__ import main
from warpseg.shards import Dataset
from warpseg.shards.sources.auto import recognise
from warpseg.shards.sources.coco_stuff import classes_of

VALUES = np.array([[0, 10, 12, 89, 91, 181, 255]] * 5, np.uint8)
"""person, fire hydrant, stop sign, toothbrush, banner, wood, unlabeled: labels less 1."""


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "coco"
    for folder in ("train2017", "val2017", "unlabeled2017"):
        (root / folder).mkdir(parents=True)
        for number in range(2):
            image = Image.new("RGB", VALUES.shape[::-1], (9 * number, 80, 70))
            image.save(root / folder / f"{number:012d}.jpg")
    for folder in ("train2017", "val2017"):
        (root / "stuffthingmaps" / folder).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(VALUES).save(root / "stuffthingmaps" / folder / f"{number:012d}.png")
    return root


def converted(tree, *words):
    data = tree.parent / "data"
    assert main(["convert", "coco-stuff", str(tree), str(data), "--workers", "1", *words]) == 0
    return Dataset.open(data)


def test_things_and_stuff(tree):
    dataset = converted(tree)
    assert len(dataset.classes) == 171
    assert {name: len(dataset.subset(name)) for name in dataset.subsets} == {
        "train": 2,
        "val": 2,
        "unlabeled": 2,
    }
    mask = dataset.subset("train").samples()[0].read_mask()[0].tolist()
    names = [dataset.classes[id_] for id_ in mask[:-1]]
    assert names == ["person", "fire hydrant", "stop sign", "toothbrush", "banner", "wood"]
    assert mask == [0, 10, 11, 79, 80, 170, IGNORE]
    assert recognise(tree) == "coco-stuff"


def test_things_and_background(tree):
    dataset = converted(tree, "--classes", "81")
    assert len(dataset.classes) == 81
    assert dataset.classes[0] == "background"
    mask = dataset.subset("val").samples()[0].read_mask()[0].tolist()
    assert mask == [1, 11, 12, 80, 0, 0, 0]


def test_published_lists_name_the_images(tree):
    """A line is an image and a mask, as UniMatch has them."""
    dataset = converted(tree, "--classes", "81")
    name = f"{1:012d}"
    lines = tree.parent / "labeled.txt"
    lines.write_text(f"train2017/{name}.jpg masks/train2017/{name}.png\n")
    words = ["split", str(dataset.root), "1_512", "--labeled-list", str(lines)]
    assert main(words) == 0
    (sample,) = Dataset.open(dataset.root).subset("labeled", "1_512").samples()
    assert sample.name == f"train2017/{name}.jpg"
    assert len(Dataset.open(dataset.root).subset("unlabeled", "1_512")) == 3


def test_values_that_no_image_shows_are_refused(tree, capsys):
    strange = VALUES.copy()
    strange[0, 0] = 11
    Image.fromarray(strange).save(tree / "stuffthingmaps" / "train2017" / f"{0:012d}.png")
    words = ["convert", "coco-stuff", str(tree), str(tree.parent / "data"), "--workers", "1"]
    assert main(words) == 1
    assert "has the value 11" in capsys.readouterr().err


def test_the_labels_have_their_places():
    names, values = classes_of("171")
    assert len(set(names)) == len(names) == 171
    assert values[91] == 80
    assert sorted(values.values()) == [*range(171), IGNORE]
    assert names[79:81] == ("toothbrush", "banner")
