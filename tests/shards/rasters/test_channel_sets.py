"""Data sets of images of any channels: converted, checked, cut into tiles."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from warpseg.__main__ import main
from warpseg.shards import Dataset
from warpseg.shards.conversion.checking import check
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.rasters.tiling import starts
from warpseg.shards.sources.folder import MaskSettings, load_folder

SIZE = (40, 56)


def pixels(seed=0, channels=6, dtype=np.uint16, size=SIZE):
    return np.random.default_rng(seed).integers(0, 200, (*size, channels)).astype(dtype)


def mask(seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 2, size).astype(np.uint8)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, image)
    elif path.suffix == ".tif":
        planes = {} if image.shape[2] == 1 else {"planarconfig": "contig"}
        stored = image if planes else image[..., 0]
        tifffile.imwrite(path, stored, photometric="minisblack", **planes)
    else:
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)


def folder(root, names=("a.tif", "b.tif", "c.tif"), **options):
    for number, name in enumerate(names):
        write(root / "images" / name, pixels(number, **options))
        write(root / "masks" / f"{name[:-4]}.png", mask(number)[..., None])
    (root / "classes.txt").write_text("ground\ncrop\n")
    return root


def packed(root, out, **settings):
    convert(load_folder(root, MaskSettings()), out, PackSettings(workers=1, **settings))
    return Dataset.open(out)


def by_name(dataset, subset="train"):
    return {sample.name: sample for sample in dataset.subset(subset).samples()}


@pytest.mark.parametrize(
    ("suffix", "channels", "dtype", "settings"),
    [
        ("tif", 6, np.uint16, {}),
        ("tif", 16, np.uint8, {}),
        ("tif", 1, np.uint16, {"channels": "all"}),
        ("npy", 2, np.uint16, {}),
        ("png", 1, np.uint16, {"channels": "all"}),
        ("png", 4, np.uint8, {"channels": "all"}),
    ],
)
def test_files_are_kept_as_they_are(tmp_path, suffix, channels, dtype, settings):
    names = [f"{letter}.{suffix}" for letter in "abc"]
    root = folder(tmp_path / "in", names, channels=channels, dtype=dtype)
    dataset = packed(root, tmp_path / "data", **settings)
    bits = 8 * np.dtype(dtype).itemsize
    assert dataset.channels.kind == (channels, bits)
    for number, name in enumerate(names):
        sample = by_name(dataset)[f"images/{name}"]
        assert sample.read(suffix) == (root / "images" / name).read_bytes()
        image = sample.read_image()
        assert image.dtype == dtype
        np.testing.assert_array_equal(image, pixels(number, channels, dtype))
    whole = np.stack([pixels(n, channels, dtype) for n in range(3)]).astype(np.float64)
    told = json.loads((tmp_path / "data" / "manifest.json").read_text())["channels"]
    assert (told["count"], told["bits"]) == (channels, bits)
    np.testing.assert_allclose(told["mean"], whole.mean((0, 1, 2)), atol=1e-3)
    np.testing.assert_allclose(told["std"], whole.std((0, 1, 2)), atol=1e-3)
    np.testing.assert_array_equal(told["low"], whole.min((0, 1, 2)))
    np.testing.assert_array_equal(told["high"], whole.max((0, 1, 2)))
    assert not any(found.problems for found in check(dataset, workers=1).values())


def test_the_manifest_of_rgb_says_nothing_new(tmp_path):
    root = folder(tmp_path / "in", ("a.png", "b.png"), channels=3, dtype=np.uint8)
    dataset = packed(root, tmp_path / "data")
    told = (tmp_path / "data" / "manifest.json").read_text()
    assert dataset.plain
    for word in ("channels", "levels", "pages", "tile", "tile_overlap"):
        assert f'"{word}"' not in told
    # Three channels of 8 bits are RGB, whatever was asked for.
    again = packed(root, tmp_path / "all", channels="all")
    assert again.plain
    assert (tmp_path / "all" / "manifest.json").read_text() == told


def test_sixteen_bits_become_eight_unless_they_are_to_stay(tmp_path):
    root = folder(tmp_path / "in", ("a.png",), channels=1, dtype=np.uint16)
    assert packed(root, tmp_path / "rgb").plain
    assert packed(root, tmp_path / "all", channels="all").channels.kind == (1, 16)


def test_pages_become_channels_when_that_is_said(tmp_path):
    root = folder(tmp_path / "in")
    for number, name in enumerate("abc"):
        planes = np.moveaxis(pixels(number), 2, 0)
        tifffile.imwrite(root / "images" / f"{name}.tif", planes, photometric="minisblack")
    with pytest.raises(ValueError, match="has 6 pages: say --pages channels"):
        packed(root, tmp_path / "no", channels="all")
    dataset = packed(root, tmp_path / "data", pages="channels")
    np.testing.assert_array_equal(by_name(dataset)["images/b.tif"].read_image(), pixels(1))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (pixels(channels=5), "5 channels of 16 bits, the first image 6 channels of 16 bits"),
        (pixels(dtype=np.uint8), "6 channels of 8 bits, the first image 6 channels of 16 bits"),
        (pixels(size=(40, 57)), "is 57 x 40 but its mask 56 x 40"),
        (pixels(channels=17), "17 channels, and an image may have 1 to 16"),
        (pixels(dtype=np.float32), "float32 levels: bring all images alike to 16 bits"),
    ],
)
def test_walls_speak(tmp_path, other, said):
    root = folder(tmp_path / "in")
    write(root / "images" / "c.tif", other)
    with pytest.raises(ValueError, match=said):
        packed(root, tmp_path / "data")


def test_an_image_of_channels_among_rgb_is_refused(tmp_path):
    root = folder(tmp_path / "in", ("a.png", "b.png"), channels=3, dtype=np.uint8)
    (root / "images" / "b.png").unlink()
    write(root / "images" / "b.tif", pixels(1))
    with pytest.raises(ValueError, match="6 channels of 16 bits, and others are RGB"):
        packed(root, tmp_path / "data")
    arrays = folder(tmp_path / "arrays", ("a.npy", "b.npy"))
    with pytest.raises(ValueError, match=r"others are RGB of 8 bits: .*--channels all keeps"):
        packed(arrays, tmp_path / "data", channels="rgb")
    with pytest.raises(ValueError, match="would not keep"):
        packed(folder(tmp_path / "six"), tmp_path / "jpeg", encoding="jpeg")


def test_sizes_and_encodings(tmp_path):
    root = folder(tmp_path / "in")
    small = packed(root, tmp_path / "small", size=(20, 28))
    sample = by_name(small)["images/a.tif"]
    assert (sample.extension, sample.read_image().shape) == ("tif", (20, 28, 6))
    arrays = packed(root, tmp_path / "npy", encoding="npy")
    sample = by_name(arrays)["images/a.tif"]
    assert sample.extension == "npy"
    np.testing.assert_array_equal(sample.read_image(), pixels(0))


@pytest.mark.parametrize("kind", ["tif", "npy", "png", "rgb", "rgb.npy", "rgb.tif"])
def test_tiles_are_parts_of_image_and_mask(tmp_path, kind):
    rgb = kind.startswith("rgb")
    options = {"channels": 3 if rgb else 1 if kind == "png" else 6}
    options["dtype"] = np.uint8 if rgb else np.uint16
    suffix = "png" if kind == "rgb" else kind.removeprefix("rgb.")
    names = (f"a.{suffix}", f"b.{suffix}")
    root = folder(tmp_path / "in", names, **options)
    more = {"channels": "all"} if kind == "png" else {}
    dataset = packed(root, tmp_path / "data", tile=24, tile_overlap=8, **more)
    samples = by_name(dataset)
    assert dataset.plain == rgb
    assert len(samples) == 2 * 2 * 3
    for name, sample in samples.items():
        image, _, place = name.partition("@")
        top, left = map(int, place.split("-"))
        number = "ab".index(image[7])
        part = (slice(top, top + 24), slice(left, left + 24))
        np.testing.assert_array_equal(sample.read_image(), pixels(number, **options)[part])
        np.testing.assert_array_equal(sample.read_mask(), mask(number)[part])
    assert starts(56, 24, 8) == [0, 16, 32]
    assert starts(40, 24, 8) == [0, 16]
    assert starts(20, 24, 8) == [0]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiles_of_more_pixels_than_are_decoded_at_once(tmp_path, monkeypatch, channels):
    monkeypatch.setenv("WARPSEG_MEGAPIXELS", "1")
    size = (1010, 1020)
    image = pixels(0, channels, np.uint8, size)
    root = folder(tmp_path / "in", ("a.tif",))
    stored = image[..., 0] if channels == 1 else image
    planes = {} if channels == 1 else {"planarconfig": "contig"}
    kind = "minisblack" if channels == 1 else "rgb"
    tifffile.imwrite(root / "images" / "a.tif", stored, tile=(256, 256), photometric=kind, **planes)
    (root / "masks" / "a.png").unlink()
    tifffile.imwrite(root / "masks" / "a.tif", mask(0, size), tile=(256, 256))
    dataset = packed(root, tmp_path / "data", tile=600)
    assert dataset.plain
    shown = image[..., :3] if channels > 1 else np.repeat(image, 3, 2)
    for name, sample in by_name(dataset).items():
        top, left = map(int, name.partition("@")[2].split("-"))
        part = (slice(top, top + 600), slice(left, left + 600))
        np.testing.assert_array_equal(sample.read_image(), shown[part])
        np.testing.assert_array_equal(sample.read_mask(), mask(0, size)[part])


def test_masks_of_large_images_are_read_by_windows(tmp_path):
    root = folder(tmp_path / "in", ("a.tif",))
    (root / "masks" / "a.png").unlink()
    tifffile.imwrite(root / "masks" / "a.tif", mask(0), tile=(16, 16))
    dataset = packed(root, tmp_path / "data", tile=24)
    for name, sample in by_name(dataset).items():
        top, left = map(int, name.partition("@")[2].split("-"))
        np.testing.assert_array_equal(sample.read_mask(), mask(0)[top : top + 24, left : left + 24])
    tifffile.imwrite(root / "masks" / "a.tif", mask(0, (40, 60)), tile=(16, 16))
    with pytest.raises(ValueError, match="is 56 x 40 but its mask 60 x 40"):
        packed(root, tmp_path / "other", tile=24)


def test_the_same_bytes_again_and_in_parts(tmp_path, capsys):
    root = folder(tmp_path / "in")
    words = ["--tile", "24", "--tile-overlap", "8", "--workers", "1"]
    assert main(["convert", "folder", str(root), str(tmp_path / "a"), *words]) == 0
    assert main(["convert", "folder", str(root), str(tmp_path / "a"), *words]) == 0
    assert "nothing to do" in capsys.readouterr().out
    for part in ("1/2", "2/2"):
        more = [*words, "--part", part]
        assert main(["convert", "folder", str(root), str(tmp_path / "b"), *more]) == 0
    assert main(["merge", str(tmp_path / "b")]) == 0
    for file in ("manifest.json", "train-000000.tar"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
