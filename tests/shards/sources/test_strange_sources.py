"""Sources as they come from elsewhere: other lists, leftovers of systems, bursting archives."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from warpseg import IGNORE
from warpseg.shards.masks.palette import default_palette
from warpseg.shards.sources import cifar10
from warpseg.shards.sources.camvid import load_camvid
from warpseg.shards.sources.cifar10 import Cifar10Settings, load_cifar10
from warpseg.shards.sources.cityscapes import CityscapesSettings, load_cityscapes
from warpseg.shards.sources.folder import MaskSettings, load_folder
from warpseg.shards.sources.voc import BORDER, VocSettings, load_voc


@pytest.fixture
def voc(tmp_path, image, mask):
    root = tmp_path / "VOC2012"
    for number in range(4):
        image(root / "JPEGImages" / f"2007_{number:06d}.jpg", number)
        mask(root / "SegmentationClass" / f"2007_{number:06d}.png", number)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000000\n2007_000001\n")
    (lists / "val.txt").write_text("2007_000002\n")
    return root


@pytest.mark.parametrize(
    "line",
    ["{}", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png", "JPEGImages/{0}.jpg\tS/{0}.png"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_voc_lists_of_ids_or_pairs(voc, line, encoding):
    ids = "".join(line.format(f"2007_00000{n}") + "\r\n" for n in (0, 1))
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text(ids, encoding=encoding)
    source = load_voc(voc, VocSettings())
    assert [entry.name for entry in source.subsets["train"]] == [
        "JPEGImages/2007_000000.jpg",
        "JPEGImages/2007_000001.jpg",
    ]
    assert source.left_out.reasons == {
        "images that no list names (--rest takes them)": (1, "JPEGImages/2007_000003.jpg")
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2007_000000 -1\n", r"line 1 is '2007_000000 -1', neither an id nor"),
        ("2007_000000\n2007_000000\n", "names '2007_000000' twice"),
        ("\n", "is empty"),
        ("../../x\n", r"JPEGImages/x\.jpg is missing"),
    ],
)
def test_voc_lists_that_are_none(voc, text, words):
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load_voc(voc, VocSettings())


def test_voc_masks_in_colours(voc):
    colours = np.array([*default_palette(21), BORDER], np.uint8)
    ids = np.arange(24 * 32).reshape(24, 32) % 22
    Image.fromarray(colours[ids]).save(voc / "SegmentationClass" / "2007_000000.png")
    source = load_voc(voc, VocSettings())
    _, mask = source.read(source.subsets["train"][0])
    assert np.array_equal(mask, np.where(ids == 21, IGNORE, ids))


def test_folders_beside_those_that_are_read(camvid_tree, cityscapes_tree):
    (camvid_tree / "validation").mkdir()
    (camvid_tree / "trainannot" / "orphan.png").write_bytes(
        (camvid_tree / "trainannot" / "shot_000.png").read_bytes()
    )
    assert load_camvid(camvid_tree).left_out.reasons == {
        "masks without an image": (1, "trainannot/orphan.png"),
        "folders or images beside those that are read": (1, "validation"),
    }
    next((cityscapes_tree / "leftImg8bit" / "train" / "ulm").iterdir()).unlink()
    assert load_cityscapes(cityscapes_tree, CityscapesSettings()).left_out.reasons.keys() == {
        "masks without an image",
        "folders or images beside those that are read",
    }


def test_hidden_folders_are_no_classes(tmp_path, image):
    for name in ("cat/0.png", "dog/0.png", ".ipynb_checkpoints/0-checkpoint.png"):
        image(tmp_path / "train" / name)
    source = load_cifar10(tmp_path, Cifar10Settings())
    assert source.classes == ("cat", "dog")
    assert source.left_out.reasons == {"hidden files and folders": (1, "train/.ipynb_checkpoints")}


def archive(path, *members):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_archives_that_overflow_or_hold_a_name_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "_LARGEST_ARCHIVE", 10**6)
    archive(tmp_path / "a.tar.gz", *[(f"train/cat/{n}.png", bytes(10**5)) for n in range(20)])
    with pytest.raises(ValueError, match=r"a\.tar\.gz unpacks to more than"):
        load_cifar10(tmp_path / "a.tar.gz", Cifar10Settings())
    archive(tmp_path / "b.tar.gz", ("train/cat/0.png", b"x"), ("./train/cat/0.png", b"y"))
    with pytest.raises(ValueError, match=r"b\.tar\.gz is no whole archive .*0\.png' twice"):
        load_cifar10(tmp_path / "b.tar.gz", Cifar10Settings())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("straße\nhimmel\n".encode("latin-1"), r"classes\.txt is not UTF-8 text"),
        (b"a\x1b[2J\nb\n", r"classes\.txt has control characters in the class 'a\\x1b\[2J'"),
        ("a ² ² ²\nb 1 2 3\n".encode(), "every class a colour"),
        (b"a " + b"9" * 5000 + b" 1 2\nb 1 2 3\n", "every class a colour"),
    ],
)
def test_class_files_of_any_kind(folder_tree, content, words):
    (folder_tree / "classes.txt").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        load_folder(folder_tree, MaskSettings())
    (folder_tree / "classes.txt").write_text("wall\nTür\nwindow\n", encoding="utf-16")
    assert load_folder(folder_tree, MaskSettings()).classes == ("wall", "Tür", "window")
