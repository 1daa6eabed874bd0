"""Walls that people met with folders of their own: each sentence names a way on, and it works."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warpseg.__main__ import main
from warpseg.shards import Dataset

RED, GREEN, BLACK = (255, 0, 0), (0, 128, 0), (0, 0, 0)


def write(root: Path, classes: str, masks: dict[str, list], images: str = "png") -> Path:
    """Write images a and b, and masks that hold the values or colours given."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate("ab"):
        noise = np.random.default_rng(number).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "images" / f"{name}.{images}")
    for name, values in masks.items():
        table = np.array(values, dtype=np.uint8)
        Image.fromarray(table[np.arange(80).reshape(8, 10) % len(values)]).save(
            root / "masks" / name
        )
    (root / "classes.txt").write_text(classes)
    return root


def convert(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Convert a folder; return what was said where that failed, or nothing."""
    data = root.with_name("data")
    status = main(["convert", "folder", str(root), str(data), "--workers", "1", *words])
    said = capsys.readouterr().err
    assert (status == 1) == bool(said), said
    return said


@pytest.mark.parametrize(("ending", "suffix"), [("_mask.png", "_mask"), (".jpg.png", ".jpg")])
def test_masks_with_a_suffix(ending, suffix, tmp_path, capsys):
    masks = {f"a{ending}": [0, 1], f"b{ending}": [0, 1]}
    root = write(tmp_path / "mine", "road\nsky\n", masks, "jpg")
    said = convert(root, capsys)
    found = re.search(r"say (--mask-suffix \S+)", said)
    assert found is not None, said
    assert found[1] == f"--mask-suffix {suffix}"
    assert not convert(root, capsys, *found[1].split())


def test_masks_without_a_common_suffix_propose_none(tmp_path, capsys):
    root = write(tmp_path / "mine", "road\nsky\n", {"a_x.png": [0, 1], "b_y.png": [0, 1]})
    said = convert(root, capsys)
    assert "a.png has no mask" in said
    assert "(2 images have none)" in said
    assert "--mask-suffix" not in said


def test_a_stray_colour(tmp_path, capsys):
    masks = {"a.png": [BLACK, RED], "b.png": [BLACK, RED, GREEN]}
    root = write(tmp_path / "mine", "road 0 0 0\nsky #FF0000\n", masks)
    said = convert(root, capsys, "--mask-values", "palette")
    assert "b.png has the value #008000, which stands for no class" in said
    line = re.search(r"write into classes\.txt the line `([^`]+)`", said)
    assert line is not None, said
    with (root / "classes.txt").open("a") as file:
        file.write(line[1] + "\n")
    assert not convert(root, capsys, "--mask-values", "palette")


def test_stray_values(tmp_path, capsys):
    masks = {"a.png": [0, 1], "b.png": [0, 11, 12]}
    root = write(tmp_path / "mine", "road\nsky\n", masks)
    said = convert(root, capsys)
    assert "b.png has the values 11, 12, which stand for no class" in said
    found = re.search(r"add (--ignore [\d ]+\d)", said)
    assert found is not None, said
    assert not convert(root, capsys, *shlex.split(found[1]))
    values = Dataset.open(tmp_path / "data").subset("train").samples()[1].read_mask()
    assert sorted(np.unique(values)) == [0, 255]


@pytest.mark.parametrize("line", ["crack\n", "crack 255 0 0\n", "crack #000000\n"])
def test_binary_masks_of_one_class(line, tmp_path, capsys):
    root = write(tmp_path / "mine", line, {"a.png": [0, 255], "b.png": [0, 255]})
    said = convert(root, capsys)
    assert "classes.txt names one class, crack: write what is around it above" in said
    assert "--mask-values binary" in said
    assert not convert(root, capsys, "--mask-values", "binary")
    made = Dataset.open(tmp_path / "data")
    assert made.classes == ("background", "crack")
    assert len(set(made.palette)) == 2
    assert sorted(np.unique(made.subset("train").samples()[0].read_mask())) == [0, 1]


@pytest.mark.parametrize(
    "text", ["0: road\n1: sky\n", "1: sky\n0: road\n", "0=road\n1=sky\n", "0\troad\n1\tsky\n"]
)
def test_classes_that_are_numbered(text, tmp_path, capsys):
    root = write(tmp_path / "mine", text, {"a.png": [0, 1], "b.png": [0, 1]})
    assert not convert(root, capsys)
    assert Dataset.open(tmp_path / "data").classes == ("road", "sky")


def test_numbers_that_are_no_ids(tmp_path, capsys):
    root = write(tmp_path / "mine", "1: road\n2: sky\n", {"a.png": [1, 2], "b.png": [1, 2]})
    said = convert(root, capsys)
    assert "numbers its 2 classes 1 to 2, and ids are 0 to 1 without gaps" in said
    # Names that hold numbers are names.
    (root / "classes.txt").write_text("0 lanes\n1 lane\n2: lanes\n")
    assert not convert(root, capsys)
    assert Dataset.open(tmp_path / "data").classes == ("0 lanes", "1 lane", "2: lanes")


def test_a_colour_that_would_be_a_comment(tmp_path, capsys):
    root = write(tmp_path / "mine", "#000000 road\n", {"a.png": [0, 1], "b.png": [0, 1]})
    said = convert(root, capsys)
    assert "has the colour first in the line '#000000 road'" in said
    assert "write `name #rrggbb`" in said
    (root / "classes.txt").write_text("# my classes\nroad #000000\nsky #0A0b0C\n")
    assert not convert(root, capsys)
    assert Dataset.open(tmp_path / "data").palette == ((0, 0, 0), (10, 11, 12))
