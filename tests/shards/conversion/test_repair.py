"""Converting again repairs: stale, damaged and foreign shards, and what a kill left behind."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warpseg.__main__ import main
from warpseg.shards import Dataset
from warpseg.shards.conversion import planning

Words = Callable[..., int]


@pytest.fixture
def convert(folder_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Words:
    """Return a function that converts the folder into `data`, three samples a shard."""
    monkeypatch.setattr(planning, "_samples_per_shard", lambda *_: 3)

    def run(*words: str) -> int:
        data = str(tmp_path / "data")
        return main(["convert", "folder", str(folder_tree), data, "--workers", "1", *words])

    return run


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("moment", [1e9, None], ids=["of an older time", "of the same time"])
def test_a_corrected_mask_reaches_its_shard(
    convert: Words, folder_tree: Path, tmp_path: Path, moment: float | None
) -> None:
    assert convert() == 0
    file = folder_tree / "masks" / "day" / "a 0.png"
    before = file.stat()
    assert (np.asarray(Image.open(file)) == 2).any()
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(file)
    times = (moment, moment) if moment else (before.st_atime, before.st_mtime)
    os.utime(file, times)
    assert convert() == 0
    samples = Dataset.open(tmp_path / "data").subset("train").samples()
    (mask,) = [s.read_mask() for s in samples if s.name == "images/day/a 0.png"]
    assert not mask.any()


Damage = Callable[[Path], None]


def flipped(data: Path) -> None:
    tar = data / "train-000001.tar"
    whole = bytearray(tar.read_bytes())
    whole[1000] ^= 4
    tar.write_bytes(bytes(whole))


def cut(data: Path) -> None:
    (data / "val-000000.tar").write_bytes(b"")


def no_index(data: Path) -> None:
    (data / "train-000000.images.idx").unlink()


def index_of_another(data: Path) -> None:
    (data / "train-000000.idx").write_bytes((data / "train-000001.idx").read_bytes())


def index_without_masks(data: Path) -> None:
    (data / "train-000000.idx").write_bytes((data / "train-000000.images.idx").read_bytes())


def no_sources(data: Path) -> None:
    (data / "sources.json").write_text("{")


@pytest.mark.parametrize(
    "damage", [flipped, cut, no_index, index_of_another, index_without_masks, no_sources]
)
def test_converting_again_repairs(convert: Words, tmp_path: Path, damage: Damage) -> None:
    assert convert() == 0
    whole = contents(tmp_path / "data")
    damage(tmp_path / "data")
    assert convert() == 0
    assert contents(tmp_path / "data") == whole


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 7}'])
def test_replace_repairs_a_damaged_manifest(
    convert: Words, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert() == 0
    whole = contents(tmp_path / "data")
    (tmp_path / "data" / "manifest.json").write_bytes(content)
    capsys.readouterr()
    assert convert() == 1
    error = capsys.readouterr().err
    assert "manifest.json" in error
    assert "--replace" in error
    assert convert("--replace") == 0
    assert contents(tmp_path / "data") == whole


def test_leftovers_of_a_kill_are_removed(convert: Words, tmp_path: Path) -> None:
    assert convert() == 0
    data = tmp_path / "data"
    whole = contents(data)
    for name in (
        "manifest.json.tmp",
        "train-000001.tar.tmp",
        "train-000009.idx",
        "test-000000.tar",
    ):
        (data / name).write_bytes(b"x")
    (data / "mine.txt").write_text("mine")
    assert convert() == 0
    assert contents(data) == {**whole, "mine.txt": b"mine"}


def test_a_file_that_became_a_pipe_is_not_waited_for(
    convert: Words, folder_tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(folder_tree / "unlabeled" / "x.png")
    assert convert() == 0
    assert "not taken: 1 pipes and devices (first: unlabeled/x.png)" in capsys.readouterr().out


def test_a_conversion_ends_with_what_it_did_not_take(
    convert: Words, folder_tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when it has nothing to do."""
    (folder_tree / "validation").mkdir()
    (folder_tree / "unlabeled" / "u9.heic").write_bytes(b"")
    clear = Image.new("RGBA", (32, 24), (9, 9, 9, 100))
    clear.save(folder_tree / "unlabeled" / "clear.png")
    pages = [Image.new("RGB", (32, 24))] * 2
    pages[0].save(folder_tree / "unlabeled" / "pages.tif", save_all=True, append_images=pages[1:])
    (folder_tree / "masks" / "b.png").write_bytes(
        (folder_tree / "masks" / "day" / "a 0.png").read_bytes()
    )
    (folder_tree / "classes.txt").write_text("wall\nopen door\nwindow\nnever\n")
    expected = [
        "not taken: 1 folders or images beside those that are read (first: validation)",
        "not taken: 1 masks without an image (first: masks/b.png)",
        "not taken: 1 files of kinds that are not read (first: unlabeled/u9.heic)",
        "changed: 1 images of several pages or frames, of which the first was taken (first: "
        "unlabeled/pages.tif)",
        "changed: 1 images with transparency, which was dropped (first: unlabeled/clear.png)",
        "warning: no pixel of train is of class never",
        "warning: no pixel of val is of class never",
    ]
    for _ in range(2):
        assert convert() == 0
        assert sorted(capsys.readouterr().out.splitlines()[1:]) == sorted(expected)


def test_check_warns_of_what_makes_no_sense(
    convert: Words, folder_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert() == 0
    assert main(["check", str(tmp_path / "data"), "--workers", "1"]) == 0
    assert capsys.readouterr().out.endswith("all is well\n")
    (folder_tree / "val" / "images" / "v0.jpg").unlink()
    image = (folder_tree / "unlabeled" / "u0.webp").read_bytes()
    (folder_tree / "val" / "images" / "v0.webp").write_bytes(image)
    assert convert("--replace") == 0
    capsys.readouterr()
    assert main(["check", str(tmp_path / "data"), "--workers", "1"]) == 0
    told = capsys.readouterr()
    assert "1 of 2 images of val lie in unlabeled, too (first: unlabeled/u0.webp)" in told.err
    assert told.out.endswith(": 1 warning\n")
    for file in (folder_tree / "val" / "masks").iterdir():
        Image.fromarray(np.full((24, 32), 255, np.uint8)).save(file)
    assert convert("--replace") == 0
    assert "warning: the masks of val hold no labeled pixel" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "data"), "--workers", "1"]) == 1
    assert capsys.readouterr().out.endswith(": 2 warnings\n")


def test_masks_of_0_and_255_are_told_apart_from_ids(
    convert: Words, folder_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder_tree / "classes.txt").write_text("a\nb\n")
    for file in folder_tree.rglob("masks/**/*.png"):
        Image.fromarray(np.asarray(Image.open(file)).clip(0, 1) * np.uint8(255)).save(file)
    assert convert() == 0
    assert "where 255 is a class, say --mask-values binary" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "data"), "--workers", "1"]) == 1
    capsys.readouterr()
    assert convert("--mask-values", "binary", "--replace") == 0
    assert "warning" not in capsys.readouterr().out


def test_the_manifest_holds_no_time(convert: Words, folder_tree: Path, tmp_path: Path) -> None:
    """What is recorded of source files stays beside it: the same images give the same bytes."""
    assert convert() == 0
    before = (tmp_path / "data" / "manifest.json").read_bytes()
    for file in folder_tree.rglob("*.png"):
        os.utime(file, (1e9, 1e9))
    assert convert() == 0
    assert (tmp_path / "data" / "manifest.json").read_bytes() == before
    assert "stamp" in json.dumps(json.loads((tmp_path / "data" / "sources.json").read_text()))
