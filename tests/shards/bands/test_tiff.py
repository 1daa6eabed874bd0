"""TIFF by windows: whatever the form of the file, they are parts of the image."""

import io
import lzma
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from warpseg.shards.bands import tiff, writing
from warpseg.shards.bands.compressed import exceeds
from warpseg.shards.bands.geo import geo_of
from warpseg.shards.bands.tiff import TiffImage, is_plain, read_tiff, write_tiff
from warpseg.shards.bands.writing import PngRows, TiffRows
from warpseg.shards.images import read_levels

SIZE = (150, 211)


def image(channels=5, dtype=np.uint16):
    most = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, most, (*SIZE, channels), dtype, endpoint=True)


FORMS = {
    "tiles": {"tile": (64, 32), "compression": "zlib", "predictor": True},
    "strips": {"rowsperstrip": 13, "compression": "zlib"},
    "one strip": {"rowsperstrip": SIZE[0]},
    "foreign bytes": {"rowsperstrip": SIZE[0], "byteorder": ">"},
    "planes": {"tile": (64, 64), "planarconfig": "separate"},
    "strips of planes": {"rowsperstrip": 20, "planarconfig": "separate"},
    "big": {"tile": (64, 64), "bigtiff": True},
}


def write(path, pixels, planarconfig="contig", **options):
    stored = np.moveaxis(pixels, 2, 0) if planarconfig == "separate" else pixels
    shared = {"photometric": "minisblack", "planarconfig": planarconfig, "metadata": None}
    tifffile.imwrite(path, stored, **shared, **options)


@pytest.mark.parametrize("form", FORMS)
def test_windows_are_parts_of_the_image(tmp_path, form):
    pixels = image()
    write(tmp_path / "a.tif", pixels, **FORMS[form])
    opened = TiffImage(tmp_path / "a.tif")
    assert (opened.shape, opened.dtype) == ((*SIZE, 5), np.uint16)
    for top, left, height, width in ((0, 0, *SIZE), (60, 30, 70, 100), (149, 210, 1, 1)):
        window = opened.read(top, left, height, width)
        np.testing.assert_array_equal(window, pixels[top : top + height, left : left + width])
    opened.close()
    np.testing.assert_array_equal(read_tiff((tmp_path / "a.tif").read_bytes(), "a"), pixels)


PACKED = {
    "LZW tiles": {"tile": (64, 32), "compression": "lzw"},
    "LZW strips, differences": {"rowsperstrip": 13, "compression": "lzw", "predictor": True},
    "zstd tiles, differences": {"tile": (64, 32), "compression": "zstd", "predictor": True},
    "zstd planes": {"tile": (64, 64), "compression": "zstd", "planarconfig": "separate"},
}
GEO = {33550: (2.0, 2.0, 0.0), 34735: (1, 1, 0, 0), 34737: "WGS 84|"}


@pytest.mark.parametrize("form", PACKED)
def test_lzw_and_zstd_are_read_by_windows(tmp_path, form):
    pytest.importorskip("imagecodecs")
    pixels = image()
    kinds = ((33550, "d", 3), (34735, "H", 4), (34737, "s", 0))
    tags = [(tag, kind, count, GEO[tag], True) for tag, kind, count in kinds]
    write(tmp_path / "a.tif", pixels, **PACKED[form], extratags=tags)
    opened = TiffImage(tmp_path / "a.tif")
    for top, left, height, width in ((0, 0, *SIZE), (60, 30, 70, 100), (149, 210, 1, 1)):
        window = opened.read(top, left, height, width)
        np.testing.assert_array_equal(window, pixels[top : top + height, left : left + width])
    opened.close()
    assert geo_of(tmp_path / "a.tif") == GEO
    np.testing.assert_array_equal(read_tiff((tmp_path / "a.tif").read_bytes(), "a"), pixels)


HIDDEN = """
import sys
sys.modules["imagecodecs"] = None
from warpseg.shards.bands.tiff import TiffImage
try:
    TiffImage(sys.argv[1]).read(0, 0, 8, 8)
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("compression", ["lzw", "zstd"])
def test_what_needs_imagecodecs_is_refused_without_it(tmp_path, compression):
    if compression == "lzw":
        Image.fromarray(image(3, np.uint8)).save(tmp_path / "a.tif", compression="tiff_lzw")
    else:
        pytest.importorskip("imagecodecs")
        write(tmp_path / "a.tif", image(), tile=(64, 32), compression="zstd")
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN, str(tmp_path / "a.tif")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(
        f"{tmp_path / 'a.tif'} is compressed in a way that needs imagecodecs: pip install"
    )


def test_few_decoded_tiles_are_kept(tmp_path, monkeypatch):
    pixels = image()
    write(tmp_path / "a.tif", pixels, tile=(16, 16))
    monkeypatch.setattr(tiff, "CACHED", 10 * 16 * 16 * 5 * 2)
    opened = TiffImage(tmp_path / "a.tif")
    np.testing.assert_array_equal(opened.read(0, 0, *SIZE), pixels)
    assert 0 < opened._held <= tiff.CACHED
    assert len(opened._kept) <= 10


def test_a_large_strip_is_refused_in_words(tmp_path, monkeypatch):
    write(tmp_path / "a.tif", image(), rowsperstrip=SIZE[0], compression="zlib")
    monkeypatch.setattr(tiff, "CACHED", 1000)
    with pytest.raises(ValueError, match=r"write it in tiles \(gdal_translate"):
        TiffImage(tmp_path / "a.tif").read(0, 0, 2, 2)


def test_an_array_written_as_a_page_for_each_row_is_explained(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", image(), photometric="minisblack")
    with pytest.raises(ValueError, match=r"150 pages of 211 x 5, .*planarconfig='contig'"):
        TiffImage(tmp_path / "a.tif", pages="channels")


def test_pages_are_channels_only_when_that_is_said(tmp_path):
    pixels = image()
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(pixels, 2, 0), photometric="minisblack")
    with pytest.raises(ValueError, match="has 5 pages: say --pages channels"):
        TiffImage(tmp_path / "a.tif")
    opened = TiffImage(tmp_path / "a.tif", pages="channels")
    assert opened.shape == (*SIZE, 5)
    np.testing.assert_array_equal(opened.read(9, 8, 70, 60), pixels[9:79, 8:68])
    np.testing.assert_array_equal(opened.whole(), pixels)


def test_overviews_are_no_pages(tmp_path):
    pixels = image(3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels, photometric="minisblack", planarconfig="contig", metadata=None)
        file.write(pixels[::2, ::2], photometric="minisblack", planarconfig="contig", subfiletype=1)
    opened = TiffImage(tmp_path / "a.tif")
    assert opened.shape == (*SIZE, 3)
    assert not is_plain(opened)


@pytest.mark.parametrize(
    ("pixels", "options", "said"),
    [
        (image().astype(np.float32), {}, "float32 levels: bring all images alike"),
        (image(17), {}, "17 channels, and an image may have 1 to 16"),
        (image(1)[..., 0], {"photometric": "miniswhite"}, "inverted: save its levels"),
    ],
)
def test_what_is_no_such_image_is_refused_in_words(tmp_path, pixels, options, said):
    shared = {"photometric": "minisblack", "planarconfig": "contig"} | options
    tifffile.imwrite(tmp_path / "a.tif", pixels, **shared)
    with pytest.raises(ValueError, match=said):
        TiffImage(tmp_path / "a.tif")


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(40))
    with pytest.raises(ValueError, match=r"a\.tif"):
        TiffImage(tmp_path / "a.tif")
    write(tmp_path / "b.tif", image(), tile=(64, 64), compression="zlib")
    data = bytearray((tmp_path / "b.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        at = file.pages[0].dataoffsets[1]
    data[at : at + 60] = bytes(60)
    with pytest.raises(ValueError, match=r"b\.tif cannot be decoded"):
        read_tiff(bytes(data), "b.tif")


def swollen(path, mebibytes):
    """Write a TIFF whose one strip of 48 kB would become so many MiB."""
    write(path, np.zeros((64, 64, 6), np.uint16), compression="zlib")
    pack = zlib.compressobj(9)
    data = b"".join(pack.compress(bytes(2**20)) for _ in range(mebibytes)) + pack.flush()
    with tifffile.TiffFile(path, mode="r+") as opened:
        handle, tags = opened.filehandle, opened.pages[0].tags
        handle.seek(0, 2)
        tags["StripOffsets"].overwrite(handle.tell())
        tags["StripByteCounts"].overwrite(len(data))
        handle.seek(0, 2)
        handle.write(data)


def test_a_strip_that_swells_is_refused_and_takes_no_memory(tmp_path):
    path = tmp_path / "swollen.tif"
    swollen(path, 256)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"swollen.tif cannot be decoded \(a piece of 49152 bytes"):
        read_tiff(path.read_bytes(), "swollen.tif")
    with pytest.raises(ValueError, match="would become many more"):
        TiffImage(path).read(0, 0, 8, 8)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


def test_lzma_swells_no_more_than_deflate_does():
    assert exceeds(lzma.compress(bytes(2**24)), 34925, 2**20)
    assert not exceeds(lzma.compress(bytes(2**24)), 34925, 2**24)
    assert exceeds(zlib.compress(bytes(2**24)), 8, 2**20)
    assert not exceeds(zlib.compress(bytes(2**24)), 8, 2**24)
    assert not exceeds(b"no stream at all" * 9999, 8, 2**10)


def test_more_pixels_than_may_be_decoded_are_refused_before_that(tmp_path, monkeypatch):
    write(tmp_path / "a.tif", np.zeros((1024, 1024, 2), np.uint16))
    monkeypatch.setenv("WARPSEG_MEGAPIXELS", "1")
    with pytest.raises(ValueError, match=r"a\.tif has 1 megapixels, and files above 1 are not"):
        read_levels((tmp_path / "a.tif").read_bytes(), "a.tif")
    assert TiffImage(tmp_path / "a.tif").read(0, 0, 8, 8).shape == (8, 8, 2)


def test_what_needs_imagecodecs_says_so(tmp_path, monkeypatch):
    write(tmp_path / "a.tif", image(), tile=(64, 64), compression="zlib")
    opened = TiffImage(tmp_path / "a.tif")
    error = opened._damaged(KeyError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package"))
    assert 'pip install "warpseg[tiff]"' in str(error)


def test_written_images_are_read_alike():
    for pixels in (image(), image(1, np.uint8)):
        data = write_tiff(pixels)
        assert data == write_tiff(pixels)
        np.testing.assert_array_equal(read_tiff(data, "a"), pixels)


@pytest.mark.parametrize("size", [(300, 517), (256, 256), (1, 3)])
@pytest.mark.parametrize("big", [False, True])
def test_maps_are_written_row_by_row(tmp_path, monkeypatch, size, big):
    monkeypatch.setattr(writing, "_CLASSIC", 0 if big else 2**32)
    values = np.random.default_rng(0).integers(0, 5, size).astype(np.uint8)
    palette = np.random.default_rng(1).integers(0, 256, (256, 3)).astype(np.uint8)
    geo = {33550: (2.0, 2.0, 0.0), 34735: (1, 1, 0, 0), 34737: "WGS 84|"}
    for colours in (None, palette):
        for name, kind in (("a.tif", TiffRows), ("a.png", PngRows)):
            with open(tmp_path / name, "wb") as file:
                more = {"geo": geo} if kind is TiffRows else {}
                writer = kind(file, size, colours, **more)
                for start in range(0, size[0], 70):
                    writer.add(values[start : start + 70])
                writer.finish()
        with tifffile.TiffFile(tmp_path / "a.tif") as tiff_file:
            assert tiff_file.is_bigtiff == big
            np.testing.assert_array_equal(tiff_file.pages[0].asarray(), values)
        assert geo_of(tmp_path / "a.tif") == geo
        for name in ("a.tif", "a.png"):
            with Image.open(tmp_path / name) as picture:
                np.testing.assert_array_equal(np.asarray(picture), values)
                shown = np.asarray(picture.convert("RGB"))
            expected = values[..., None].repeat(3, 2) if colours is None else palette[values]
            np.testing.assert_array_equal(shown, expected)


def test_missing_rows_are_no_map():
    for kind in (TiffRows, PngRows):
        writer = kind(io.BytesIO(), (10, 10))
        writer.add(np.zeros((9, 10), np.uint8))
        with pytest.raises(ValueError, match="9 rows were written of a map of 10"):
            writer.finish()
