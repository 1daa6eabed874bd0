"""The upper rows of PNGs: the same pixels, and of damaged files the same words."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image
from warpseg.shards import png
from warpseg.shards.images import open_packed
from warpseg.shards.window import open_window

HEIGHT, WIDTH = 171, 183
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")


def file_of(mode="RGB", **options):
    """A PNG of several chunks of pixels, as levels are noise."""
    levels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    picture = Image.fromarray(levels)
    if mode == "I;16":
        picture = Image.fromarray(levels[..., 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        picture = picture.convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


def goes_from_above(data):
    return png.goes_from_above(data, (HEIGHT, WIDTH))


def decoded(data, rows=None):
    """The pixels, all or those of the upper rows, or what is said instead."""
    try:
        if rows is not None:
            return np.asarray(open_window(data, "image", (0, 0, rows, WIDTH), (HEIGHT, WIDTH)))
        return np.asarray(open_packed(data))
    except ValueError as error:
        return str(error)


def chunk(kind, content):
    body = kind + content
    return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


@pytest.mark.parametrize("mode", MODES)
def test_upper_rows_have_the_pixels_of_the_whole(mode):
    data = file_of(mode)
    whole = decoded(data)
    for rows in (1, 2, 50, 169):
        part = decoded(data, rows)
        assert np.array_equal(part[:rows], whole[:rows])
        assert not np.array_equal(part[rows:], whole[rows:])
    assert np.array_equal(decoded(data, HEIGHT), whole)


@pytest.mark.parametrize("options", [{"icc_profile": b"x" * 999}, {"transparency": (1, 2, 3)}])
def test_other_chunks_stay(options):
    data = file_of(**options)
    end = data.index(b"IEND") - 4
    data = data[:end] + chunk(b"tEXt", b"Comment\0after the pixels") + data[end:]
    assert goes_from_above(data)
    assert np.array_equal(decoded(data, 9)[:9], decoded(data)[:9])


def test_files_that_do_not_go_from_above_stay_whole():
    frames = [Image.new("RGB", (30, 40), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    data = file_of()
    interlaced = data[:12] + data[12:28] + b"\1"
    interlaced += zlib.crc32(interlaced[12:]).to_bytes(4, "big") + data[33:]
    jpeg = io.BytesIO()
    frames[0].save(jpeg, "JPEG")
    for other in (buffer.getvalue(), interlaced, jpeg.getvalue(), b"", data[:20], data + b"\0"):
        assert not goes_from_above(other)


def test_more_pixels_than_allowed_are_refused_with_any_rows(monkeypatch):
    data = file_of()
    monkeypatch.setattr(png, "most_megapixels", lambda: 0)
    assert not goes_from_above(data)


def test_damaged_files_are_what_they_are_when_decoded_whole():
    """Else an image would be left out or not by what was drawn, and a resumed run would differ."""
    rng, data, refused = np.random.default_rng(0), file_of(), 0
    for _ in range(300):
        spoilt = bytearray(data)
        at, kind = int(rng.integers(8, len(data))), rng.integers(3)
        if kind == 0:
            spoilt[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del spoilt[at : at + int(rng.integers(1, 30))]
        else:
            del spoilt[at:]
        spoilt = bytes(spoilt)
        right = decoded(spoilt)
        refused += isinstance(right, str)
        found = decoded(spoilt, int(rng.integers(1, 170)))
        assert isinstance(found, str) == isinstance(right, str)
        assert found == right if isinstance(right, str) else np.array_equal(found, right)
    assert refused > 150
