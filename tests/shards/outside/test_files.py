"""Files of other people: found once, read only where they are files, and none lost in silence."""

import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from PIL import Image
from warpseg.shards.outside.files import LeftOut, read_file, walk_images
from warpseg.shards.source import Entry, list_images, pair_with_masks


def picture(path, size=(4, 3), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, **options)


def test_what_is_not_taken_is_counted(tmp_path):
    for name in (
        "a.png",
        "b.jpe",
        "c.jfif",
        "d.tga",
        ".h.png",
        ".ipynb_checkpoints/a.png",
        "@eaDir/a.png",
    ):
        picture(tmp_path / "x" / name, format="TGA" if name.endswith("tga") else "PNG")
    (tmp_path / "x" / "notes.txt").write_text("")
    (tmp_path / "x" / "e.heic").write_bytes(b"")
    os.mkfifo(tmp_path / "x" / "f.png")
    (tmp_path / "x" / "g.png").symlink_to(tmp_path / "nowhere")
    left_out = LeftOut()
    assert walk_images(tmp_path, "x", left_out) == ["x/a.png", "x/b.jpe", "x/c.jfif", "x/d.tga"]
    assert left_out.reasons == {
        "hidden files and folders": (3, "x/.h.png"),
        "files of kinds that are not read": (2, "x/e.heic"),
        "pipes and devices": (1, "x/f.png"),
        "links to nothing": (1, "x/g.png"),
    }
    assert (
        left_out.lines("not taken")[0] == "not taken: 3 hidden files and folders (first: x/.h.png)"
    )


def test_links_to_folders_are_followed_once(tmp_path):
    picture(tmp_path / "store" / "s.png")
    picture(tmp_path / "x" / "a.png")
    (tmp_path / "x" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "x" / "again").symlink_to(tmp_path / "store")
    (tmp_path / "x" / "round").symlink_to(tmp_path / "x")
    left_out = LeftOut()
    assert walk_images(tmp_path, "x", left_out) == ["x/a.png", "x/again/s.png"]
    assert left_out.reasons == {"links to folders that are read already": (2, "x/linked/")}


@pytest.mark.parametrize(
    "name", [b"a\xff.png", b"a\x1b[2J.png", b"a\nb.png", "a\u202egnp.png".encode()]
)
def test_names_that_steer_or_are_no_text_are_refused(tmp_path, name):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / os.fsdecode(name)).write_bytes(b"")
    with pytest.raises(ValueError, match="rename it") as caught:
        walk_images(tmp_path, "x", LeftOut())
    assert str(caught.value).isprintable()


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(ValueError, match="where a file should be"):
            read_file(path)


def pairs(root, suffix=""):
    left_out = LeftOut()
    images = list_images(root, "i")
    return pair_with_masks(root, images, "i", "m", suffix, left_out), left_out.reasons


def test_masks_without_an_image_are_counted(tmp_path):
    for name in ("i/a.png", "m/a.png", "m/b.png", "m/sub/c.png"):
        picture(tmp_path / name)
    found, reasons = pairs(tmp_path)
    assert found == [Entry(name="i/a.png", image="i/a.png", mask="m/a.png")]
    assert reasons == {"masks without an image": (2, "m/b.png")}


@pytest.mark.parametrize("second", ["i/a.jpg", "m/a.tif", "m/a.PNG"])
def test_two_of_one_name_are_refused(tmp_path, second):
    for name in ("i/a.png", "m/a.png", second):
        picture(tmp_path / name)
    with pytest.raises(ValueError, match=r"are two (images|masks) of one name: remove one"):
        pairs(tmp_path)


def test_names_are_compared_in_one_normal_form(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    picture(tmp_path / "i" / f"{apart}.png")
    picture(tmp_path / "m" / f"{composed}.png")
    (entry,), _ = pairs(tmp_path)
    assert entry.mask == f"m/{composed}.png"
    shutil.copy(tmp_path / "m" / f"{composed}.png", tmp_path / "m" / f"{apart}.png")
    with pytest.raises(ValueError, match="are two masks of one name"):
        pairs(tmp_path)
