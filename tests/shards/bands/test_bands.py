"""Levels of channels, arrays, resampling."""

import io

import numpy as np
import pytest
from PIL import Image
from warpseg.shards.bands.arrays import NpyFile, read_npy, write_npy
from warpseg.shards.bands.bands import Bands, checked_image, count_levels, join_levels, sum_levels
from warpseg.shards.bands.resample import resample
from warpseg.shards.images import read_levels


def image(size=(20, 30), channels=6, seed=0, dtype=np.uint16):
    most = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, most, (*size, channels), dtype, endpoint=True)


def test_levels_of_images_and_shards_are_those_of_all_pixels():
    images = [image(seed=seed, size=(9 + seed, 14)) for seed in range(5)]
    shards = [images[:2], images[2:]]
    rows = [sum_levels([count_levels(part) for part in shard]) for shard in shards]
    pixels = [sum(part[..., 0].size for part in shard) for shard in shards]
    joined = join_levels(list(zip(pixels, rows, strict=True)))
    whole = np.concatenate([part.reshape(-1, 6) for part in images]).astype(np.float64)
    np.testing.assert_array_equal(joined["low"], whole.min(0))
    np.testing.assert_array_equal(joined["high"], whole.max(0))
    np.testing.assert_allclose(joined["mean"], whole.mean(0), atol=1e-3)
    np.testing.assert_allclose(joined["std"], whole.std(0), atol=1e-3)


def test_channels_say_what_they_are():
    bands = Bands(count=2, bits=16, mean=(1.0, 2.0))
    assert (bands.kind, bands.highest, bands.dtype) == ((2, 16), 65535, np.uint16)
    assert bands.to_json() == {"count": 2, "bits": 16, "mean": (1.0, 2.0)}
    assert not Bands(count=3, bits=8, mean=(1.0,)).fits()


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32 levels: bring all images alike to 16 bits"),
        (np.zeros((4, 4, 3), np.int16), "int16 levels: save unsigned"),
        (np.zeros((4, 4, 17), np.uint8), "17 channels, and an image may have 1 to 16: choose"),
        (np.zeros((2, 4, 4, 3), np.uint8), "save it as"),
    ],
)
def test_arrays_that_are_no_images_are_refused_in_words(array, said):
    with pytest.raises(ValueError, match=said):
        read_npy(write_npy(array), "a.npy")


def test_arrays_are_read_whole_and_by_windows(tmp_path):
    pixels = image()
    foreign = pixels.astype(">u2")
    np.save(tmp_path / "a.npy", foreign)
    opened = NpyFile(tmp_path / "a.npy")
    assert opened.shape == (20, 30, 6)
    window = opened.read(3, 5, 7, 11)
    assert window.dtype == np.uint16
    np.testing.assert_array_equal(window, pixels[3:10, 5:16])
    np.testing.assert_array_equal(read_npy(write_npy(foreign), "a"), pixels)
    assert checked_image(pixels[..., 0], "a").shape == (20, 30, 1)


def test_pickles_are_not_loaded(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_npy(buffer.getvalue(), "a.npy")


def test_resampling_is_that_of_rgb():
    rgb = image(channels=3, dtype=np.uint8)
    box = (2.5, 1.25, 27.0, 18.5)
    expected = Image.fromarray(rgb).resize((17, 9), Image.Resampling.BILINEAR, box=box)
    np.testing.assert_array_equal(resample(rgb, (9, 17), box), np.asarray(expected))
    deep = rgb.astype(np.uint16) * 257
    gap = resample(deep, (9, 17), box) / 257 - np.asarray(expected)
    # Of 8 bits Pillow rounds between rows and columns, too.
    assert np.abs(gap).max() < 1


@pytest.mark.parametrize("channels", [3, 4])
def test_png_of_16_bits_keeps_them(channels):
    import struct
    import zlib

    pixels = image(channels=channels)
    # Filter 2 (up) on every row, so that a decoder has something to undo.
    raw = pixels.astype(">u2").tobytes()
    row = 30 * channels * 2
    rows = np.frombuffer(raw, np.uint8).reshape(20, row)
    above = np.vstack([np.zeros((1, row), np.uint8), rows[:-1]])
    filtered = np.hstack([np.full((20, 1), 2, np.uint8), rows - above])

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", 30, 20, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    png += chunk(b"IDAT", zlib.compress(filtered.tobytes())) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(read_levels(png, "a.png"), pixels)


def test_png_of_one_channel_and_of_8_bits(tmp_path):
    grey = image(channels=1)
    Image.fromarray(grey[..., 0]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_levels((tmp_path / "a.png").read_bytes()), grey)
    four = image(channels=4, dtype=np.uint8)
    Image.fromarray(four).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_levels((tmp_path / "b.png").read_bytes()), four)
