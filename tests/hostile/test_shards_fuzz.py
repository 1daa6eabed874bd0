"""Damaged and hostile files of data sets: no traceback, no hang, one sentence each."""

import io
import pickle
import random
import shutil
import tarfile

import numpy as np
import pytest
from mutations import BYTES, JSON, TEXT, damage
from PIL import Image
from targets import Target, try_target
from warpseg.__main__ import main
from warpseg.shards.pseudo import (
    PseudoLabel,
    encode_label,
    open_pseudo_labels,
    read_pseudo_label,
    write_label_manifest,
    write_label_shard,
)

SEED = 13
SUFFIXES = ("png", "jpg", "webp", "tif", "gif", "bmp", "tga", "ppm")
ONE = ("--workers", 1)


def save_pair(root, name, seed, suffix="png"):
    rng = np.random.default_rng(seed)
    for part, shape in (("images", (16, 20, 3)), ("masks", (16, 20))):
        (root / part).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256 if part == "images" else 2, shape, np.uint8)
        picture = Image.fromarray(pixels)
        if part == "masks" and seed % 3 == 2:
            picture = picture.convert("P")
        picture.save(root / part / f"{name}.{suffix if part == 'images' else 'png'}")


def make_folder(root):
    for number, suffix in enumerate(SUFFIXES):
        save_pair(root, f"a {number}", number, suffix)
    save_pair(root / "val", "v", 99)
    (root / "unlabeled").mkdir()
    shutil.copy(root / "images" / "a 1.jpg", root / "unlabeled" / "u.jpg")
    (root / "classes.txt").write_text("road 128 64 128\nsky 70 130 180\n")
    (root / "map.txt").write_text("0 0\n1 1\n7 ignore\n")
    (root / "list.txt").write_text("images/a 0.png masks/a 0.png\na 3\nunlabeled/u.jpg\n"[:-16])


def make_data(root):
    make_folder(root / "source")
    assert main([str(w) for w in ("convert", "folder", root / "source", root / "data", *ONE)]) == 0
    assert main(["split", str(root / "data"), "few", "--labeled", "3", "--held-out", "1"]) == 0
    shutil.copy(root / "source" / "list.txt", root / "list.txt")


def make_parts(root):
    make_folder(root / "source")
    for part in ("1/2", "2/2"):
        words = ("convert", "folder", root / "source", root / "data", *ONE, "--part", part)
        assert main([str(word) for word in words]) == 0


def make_voc(root):
    for number in range(4):
        save_pair(root / "all", f"2007_00000{number}", number, "jpg")
    (root / "VOC2012").mkdir()
    shutil.move(root / "all" / "images", root / "VOC2012" / "JPEGImages")
    shutil.move(root / "all" / "masks", root / "VOC2012" / "SegmentationClass")
    lists = root / "VOC2012" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000000\nJPEGImages/2007_000001.jpg S/2007_000001.png\n")
    (lists / "val.txt").write_text("2007_000002\n")


def make_cifar(root):
    root.mkdir()
    for number, name in enumerate([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]):
        rng = np.random.default_rng(number)
        data = rng.integers(0, 256, (4, 3072), np.uint8)
        batch = {b"data": data, b"labels": [0, 1, 2, 3]}
        (root / name).write_bytes(pickle.dumps(batch, protocol=2))


def make_cifar_archive(root):
    root.mkdir()
    with tarfile.open(root / "cifar.tar.gz", "w:gz") as tar:
        for subset in ("train", "test"):
            for number in range(4):
                buffer = io.BytesIO()
                Image.new("RGB", (8, 8), (number, 2, 3)).save(buffer, "PNG")
                member = tarfile.TarInfo(f"{subset}/{'cat' if number % 2 else 'dog'}/{number}.png")
                member.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(member, buffer)


MAKERS = {
    "folder": make_folder,
    "data": make_data,
    "parts": make_parts,
    "voc": make_voc,
    "cifar": make_cifar,
    "archive": make_cifar_archive,
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders of each kind, made once."""
    root = tmp_path_factory.mktemp("bases")
    for name, make in MAKERS.items():
        make(root / name)
    return root


def check(copy):
    return "check", copy / "data", *ONE


def convert(kind, *options):
    return lambda copy: ("convert", kind, copy, copy / "out", *ONE, *options)


def split(*options):
    return lambda copy: ("split", copy / "data", *options)


def again(copy):
    return "convert", "folder", copy / "source", copy / "data", *ONE, "--replace"


def mapped(copy):
    return "convert", "folder", copy, copy / "out", *ONE, "--id-map", copy / "map.txt"


def listed(copy):
    return "split", copy / "data", "new", "--labeled-list", copy / "list.txt"


def fetched(copy):
    return "fetch", f"file://{copy / 'data'}", copy / "here" / "data", "--jobs", 1


def merged(copy):
    return "merge", copy / "data"


TARS, INDEXES, SPLITS = ("data/*.tar",), ("data/*.idx",), ("data/splits/few/*/*.idx",)
NOTES = "data/sources.json"
MANIFEST, SPLIT_FILE = ("data/manifest.json",), ("data/splits/few/split.json",)
TARGETS = [
    Target(
        name=name,
        base=base,
        files=files,
        ways=ways,
        words=words,
        count=count,
        lines=words is check,
        allowed=(0,) if name.startswith("repair") else (0, 1),
    )
    for name, base, files, ways, words, count in (
        ("check manifest", "data", MANIFEST, JSON, check, 150),
        ("split manifest", "data", MANIFEST, JSON, split("new", "--labeled", "1/2"), 60),
        ("check tar", "data", TARS, BYTES, check, 100),
        ("check index", "data", INDEXES, TEXT, check, 80),
        ("split index", "data", INDEXES, TEXT, split("new", "--labeled", "1/2"), 60),
        ("check split's index", "data", SPLITS, TEXT, check, 80),
        ("check split.json", "data", SPLIT_FILE, JSON, check, 80),
        (
            "repair split",
            "data",
            (*SPLITS, *SPLIT_FILE),
            BYTES,
            split("few", "--labeled", "3", "--held-out", "1", "--replace"),
            80,
        ),
        (
            "repair data",
            "data",
            (*TARS, *INDEXES, *MANIFEST, "data/sources.json"),
            BYTES,
            again,
            80,
        ),
        ("convert images", "folder", ("images/*", "unlabeled/*"), BYTES, convert("folder"), 160),
        ("convert masks", "folder", ("masks/*",), BYTES, convert("folder"), 80),
        ("convert classes", "folder", ("classes.txt",), TEXT, convert("folder"), 50),
        ("convert id map", "folder", ("map.txt",), TEXT, mapped, 40),
        ("split list", "data", ("list.txt",), TEXT, listed, 80),
        ("convert voc", "voc", ("VOC2012/ImageSets/*/*",), TEXT, convert("voc"), 60),
        ("convert cifar10", "cifar", ("*",), BYTES, convert("cifar10"), 60),
        ("convert archive", "archive", ("*.gz",), BYTES, convert("cifar10"), 40),
        ("merge plan", "parts", ("data/part-*/*.json",), JSON, merged, 60),
        ("fetch manifest", "data", MANIFEST, JSON, fetched, 80),
        ("fetch rest", "data", (*TARS, *INDEXES, *SPLITS, *SPLIT_FILE), BYTES, fetched, 60),
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_files_are_answered_in_one_sentence(target, bases, tmp_path):
    found = try_target(target, bases / target.base, tmp_path / "room", SEED)
    assert not found, f"{len(found)} of {target.count} inputs:\n" + "\n".join(found[:20])


@pytest.mark.slow
def test_damaged_pseudo_labels(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    label = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    labels = [
        encode_label(PseudoLabel(f"{key:08d}", label, label * 9), label, 3) for key in range(3)
    ]
    write_label_manifest(made, [write_label_shard(made, 0, labels)], {"request": {}}, complete=True)
    read = 0
    for number in range(120):
        rng = random.Random(f"labels/{SEED}/{number}")
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(made, tmp_path / "copy")
        file = rng.choice(sorted((tmp_path / "copy").iterdir()))
        damage(rng, file, {".json": JSON, ".tar": BYTES, ".idx": TEXT}[file.suffix])
        told = ""
        try:
            for sample in open_pseudo_labels(tmp_path / "copy").values():
                read_pseudo_label(sample)
            read += 1
        except (ValueError, FileNotFoundError) as error:
            told = str(error)
        assert not told or (str(tmp_path / "copy") in told and "\n" not in told)
    assert read < 60


def test_there_are_enough_inputs():
    assert sum(target.count for target in TARGETS) + 120 >= 1200
