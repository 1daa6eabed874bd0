"""What of TIFFs is dropped is said; pictures that lie on their side lie as their masks do."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.images import open_image
from warpseg.shards.sources.folder import MaskSettings, load_folder

SIZE = (24, 40)
ORIENTATION = 0x0112


def ramp(channels=3, dtype=np.uint8, size=SIZE):
    """An image of which no turn is the same."""
    levels = np.random.default_rng(0).integers(0, 250, (*size, channels))
    return levels.astype(dtype) * (257 if dtype == np.uint16 else 1)


def tiff(image, orientation=1, **options):
    options = {"photometric": "rgb", "planarconfig": "contig"} | options
    buffer = io.BytesIO()
    tags = [(ORIENTATION, 3, 1, orientation, True)] if orientation != 1 else []
    tifffile.imwrite(buffer, image, extratags=tags, **options)
    return buffer.getvalue()


def picture(image, kind, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, exif=exif, quality=95, subsampling=0)
    return buffer.getvalue()


def folder(root, name, data, mask):
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    (root / "images" / name).write_bytes(data)
    Image.fromarray(mask).save(root / "masks" / f"{name.split('.')[0]}.png")
    (root / "classes.txt").write_text("ground\ncrop\n")
    return root


def converted(root, out, **settings):
    report = convert(load_folder(root, MaskSettings()), out, PackSettings(workers=1, **settings))
    said = [line for line in report.said if not line.startswith("warning")]
    return Dataset.open(out), said


MASK = (np.indices(SIZE).sum(0) % 3 == 0).astype(np.uint8)


@pytest.mark.parametrize("tile", [0, 16])
@pytest.mark.parametrize(
    ("image", "options", "said"),
    [
        (ramp(4), {"extrasamples": [0]}, "1 images of further channels, which were dropped"),
        (ramp(3, np.uint16), {}, "1 images of 16 bits a channel, of which 8 were taken"),
        (ramp(4), {"extrasamples": [2]}, "1 images with transparency, which was dropped"),
        (ramp(3), {}, ""),
    ],
)
def test_what_rgb_does_not_show_of_a_tiff_is_said_once(image, options, said, tile, tmp_path):
    root = folder(tmp_path / "mine", "a.tif", tiff(image, **options), MASK)
    _, lines = converted(root, tmp_path / "data", tile=tile)
    assert len(lines) == bool(said)
    assert all(line.startswith(f"changed: {said}") for line in lines)


def test_five_channels_are_kept_whatever_three_of_them_are_called(tmp_path):
    data = tiff(ramp(5), extrasamples=[0, 0])
    dataset, said = converted(folder(tmp_path / "mine", "a.tif", data, MASK), tmp_path / "data")
    bands = dataset.manifest.channels
    assert bands is not None
    assert bands.kind == (5, 8)
    assert not said


def test_arrays_that_are_taken_are_not_counted_as_left_out(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, ramp(5))
    root = folder(tmp_path / "mine", "a.npy", buffer.getvalue(), MASK)
    (root / "images" / "notes.csv").write_text("x")
    _, said = converted(root, tmp_path / "data")
    assert said == ["not taken: 1 files of kinds that are not read (first: images/notes.csv)"]


@pytest.mark.parametrize("tile", [0, 16])
def test_a_tiff_that_ends_too_early_is_named(tile, tmp_path):
    data = tiff(ramp(6), photometric="minisblack")[:3000]
    root = folder(tmp_path / "mine", "a.tif", data, MASK)
    with pytest.raises(ValueError, match=r"a\.tif cannot be decoded .*: replace or remove it"):
        converted(root, tmp_path / "data", tile=tile)


@pytest.mark.parametrize("tile", [0, 16])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_picture_that_may_lie_either_way_is_refused_and_laid_as_is_said(kind, tile, tmp_path):
    data = tiff(ramp(), 3) if kind == "TIFF" else picture(ramp(), kind, 3)
    name = {"JPEG": "a.jpg", "PNG": "a.png", "TIFF": "a.tif"}[kind]
    root = folder(tmp_path / "mine", name, data, MASK)
    with pytest.raises(ValueError, match=r"turned by EXIF .orientation 3.*say --exif upright"):
        converted(root, tmp_path / "data", tile=tile)
    dataset, _ = converted(root, tmp_path / "upright", tile=tile, exif="upright")
    corner = ramp()[::-1, ::-1][:16, :16].astype(int)
    assert np.abs(first(dataset)[:16, :16] - corner).max() <= (25 if kind == "JPEG" else 0)
    if kind == "TIFF":  # Pillow turns them, asked or not
        with pytest.raises(ValueError, match="save the image as it is stored, without the tag"):
            converted(root, tmp_path / "raw", tile=tile, exif="raw")
        return
    dataset, _ = converted(root, tmp_path / "raw", tile=tile, exif="raw")
    corner = ramp()[:16, :16].astype(int)
    assert np.abs(first(dataset)[:16, :16] - corner).max() <= (25 if kind == "JPEG" else 0)


def first(dataset):
    samples = {sample.name: sample for sample in dataset.subset("train").samples()}
    sample = samples[min(samples)]
    return sample.read_image().astype(int)


@pytest.mark.parametrize("tile", [0, 16])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_a_picture_is_turned_where_its_mask_has_that_shape(kind, tile, tmp_path):
    image = ramp(size=SIZE[::-1])
    data = tiff(image, 6) if kind == "TIFF" else picture(image, kind, 6)
    name = "a.tif" if kind == "TIFF" else "a.jpg"
    dataset, _ = converted(
        folder(tmp_path / "mine", name, data, MASK), tmp_path / "data", tile=tile
    )
    corner = np.rot90(image, -1)[:16, :16].astype(int)
    assert np.abs(first(dataset)[:16, :16] - corner).max() <= (25 if kind == "JPEG" else 0)


def test_channels_that_lie_on_their_side_are_refused(tmp_path):
    data = tiff(ramp(6), 3, photometric="minisblack")
    root = folder(tmp_path / "mine", "a.tif", data, MASK)
    with pytest.raises(ValueError, match=r"turned by its tag .orientation 3.: save its pixels"):
        converted(root, tmp_path / "data")


def test_a_reader_says_nothing_of_its_own(capfd):
    data = tiff(ramp(17), photometric="minisblack")
    with pytest.raises(ValueError, match="cannot be decoded"):
        open_image(data, "a.tif")
    assert capfd.readouterr().err == ""
