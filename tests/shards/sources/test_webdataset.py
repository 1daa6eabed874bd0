"""WebDatasets with masks, as the webdataset package writes them."""

import io

import numpy as np
import pytest
import webdataset
from PIL import Image
from warpseg.__main__ import main
from warpseg.shards import Dataset
from warpseg.shards.sources.webdataset import WebDatasetSettings, load_webdataset

NAMES = ("sky", "road", "tree")


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def sample(number, mask="seg.png", image="png"):
    """An image of one level and a mask that follows from its number; every third has none."""
    made = {"__key__": f"scene/{number:03}", image: png(np.full((6, 8, 3), number, np.uint8))}
    made["json"] = {"number": number}
    if number % 3:
        ids = (np.arange(48).reshape(6, 8) + number) % 3
        made[mask] = png(ids.astype(np.uint8))
    return made


def written(root, **options):
    root.mkdir()
    for part, numbers in (("train", range(6)), ("val", range(6, 9))):
        with webdataset.TarWriter(str(root / f"{part}-0000.tar")) as tar:
            for number in numbers:
                tar.write(sample(number, **options))
    (root / "classes.txt").write_text("\n".join(NAMES))
    (root / "README.md").write_text("words")
    return root


def test_samples_are_converted_pixel_by_pixel(tmp_path, capsys):
    root, data = written(tmp_path / "tars"), tmp_path / "data"
    assert main(["convert", "webdataset", str(root), str(data), "--workers", "1"]) == 0
    assert "README.md" in capsys.readouterr().out
    dataset = Dataset.open(data)
    assert dataset.classes == NAMES
    counts = {name: len(dataset.subset(name)) for name in dataset.subsets}
    assert counts == {"train": 4, "val": 2, "unlabeled": 3}
    for name in ("train", "val"):
        for found in dataset.subset(name).samples():
            number = int(found.read_image()[0, 0, 0])
            assert found.name.endswith(f"-0000.tar#scene/{number:03}")
            expected = (np.arange(48).reshape(6, 8) + number) % 3
            assert np.array_equal(found.read_mask(), expected)


def test_values_of_no_class_are_ignored_as_the_refusal_says(tmp_path, capsys):
    root = written(tmp_path / "tars")
    (root / "classes.txt").write_text("sky\nroad")
    words = ["convert", "webdataset", str(root), str(tmp_path / "data"), "--workers", "1"]
    assert main(words) == 1
    assert "add --ignore 2" in capsys.readouterr().err
    assert main([*words, "--ignore", "2"]) == 0
    (sample, *_) = Dataset.open(tmp_path / "data").subset("train").samples()
    assert set(np.unique(sample.read_mask())) == {0, 1, 255}
    with pytest.raises(ValueError, match="take values from 0 to 65535"):
        WebDatasetSettings(ignore=(-1,))


def test_members_of_other_names_are_named(tmp_path):
    root = written(tmp_path / "tars", mask="truth.png", image="rgb.png")
    # Masks come before the names of classes: images alone need neither.
    (root / "classes.txt").rename(root / "names")
    said = r"no sample of the tars .* has a mask .*they have 'json, rgb\.png, truth\.png': .*--mask"
    with pytest.raises(ValueError, match=said):
        load_webdataset(root, WebDatasetSettings(image="rgb.png"))
    (root / "names").rename(root / "classes.txt")
    source = load_webdataset(root, WebDatasetSettings(image="rgb.png", mask="truth.png"))
    assert len(source.subsets["train"]) == 4


def test_a_tar_that_ends_too_early_is_refused(tmp_path):
    root = written(tmp_path / "tars")
    tar = root / "train-0000.tar"
    whole = tar.read_bytes()
    for cut in (len(whole) // 2, whole.rindex(b"scene/005")):
        tar.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"train-0000.tar is no whole tar"):
            load_webdataset(root, WebDatasetSettings())


def test_compressed_tars_are_told_apart_from_other_files(tmp_path):
    root = written(tmp_path / "tars")
    (root / "more.tar.gz").write_bytes(b"")
    source = load_webdataset(root, WebDatasetSettings())
    (told,) = (line for line in source.left_out.lines("not taken") if "more.tar.gz" in line)
    assert "compressed tars, which cannot be read at random: unpack them" in told


def test_a_root_without_tars_is_refused(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="has no tars"):
        load_webdataset(tmp_path, WebDatasetSettings(names=NAMES))
