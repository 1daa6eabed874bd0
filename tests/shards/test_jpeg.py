"""The upper rows of JPEGs: the same pixels, and of damaged files the same words."""

import io

import numpy as np
import pytest
from PIL import Image
from warpseg.shards import jpeg
from warpseg.shards.images import open_packed
from warpseg.shards.window import open_window

HEIGHT, WIDTH = 171, 83
CUT = {
    "4:2:0": {"quality": 90},
    "4:2:2": {"quality": 80, "subsampling": "4:2:2"},
    "4:4:4": {"quality": 95, "subsampling": "4:4:4"},
    "rows restart": {"quality": 90, "restart_marker_rows": 1},
    "blocks restart": {"quality": 90, "restart_marker_blocks": 3},
    "rgb": {"quality": 90, "keep_rgb": True},
    "grey": {"mode": "L"},
    "cmyk": {"mode": "CMYK"},
    "own tables": {"optimize": True},
    "exif": {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"},
}
WHOLE = {
    "progressive": {"progressive": True},
    "several": {"kind": "MPO", "save_all": True, "append_images": [Image.new("RGB", (9, 9))]},
    "png": {"kind": "PNG"},
}


def file_of(kind="JPEG", mode="RGB", seed=0, **options):
    levels = np.random.default_rng(seed).integers(0, 256, (12, 9, 3), np.uint8)
    picture = Image.fromarray(levels).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def upper_rows(data, rows):
    return jpeg.upper_rows(data, rows, (HEIGHT, WIDTH))


def decoded(data, needed=None):
    """The pixels, all or the needed ones, or what is said instead."""
    try:
        if needed is not None:
            return np.asarray(open_window(data, "image", needed, (HEIGHT, WIDTH)))
        return np.asarray(open_packed(data))
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("name", CUT)
def test_upper_rows_have_the_pixels_of_the_whole(name):
    data = file_of(**CUT[name])
    whole = decoded(data)
    for rows in (17, 18, 31, 32, 33, 100, 161, 170):
        part = decoded(upper_rows(data, rows))
        same = rows - jpeg.MARGIN
        assert len(part) == rows
        assert np.array_equal(part[:same], whole[:same]), rows
    for rows in (171, 400):
        assert upper_rows(data, rows) is None


@pytest.mark.parametrize("name", WHOLE)
def test_files_that_do_not_go_from_above_stay_whole(name):
    assert upper_rows(file_of(**WHOLE[name]), 20) is None


def damage(data, rng):
    """A file with one to three faults, such as disks and transfers make."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(2, max(len(data), 3)))
        kind = rng.integers(5)
        if kind == 0:
            data[at : at + 1] = bytes([rng.integers(256)])
        elif kind == 1:
            del data[at : at + int(rng.integers(1, 30))]
        elif kind == 2:
            data[at:at] = bytes([255, int(rng.integers(0xC0, 0x100))])
        else:
            data = data[:at] + (b"\xff\xd9" if kind == 3 else b"")
    return bytes(data)


def test_damaged_files_are_what_they_are_when_decoded_whole():
    """Else an image would be left out or not by what was drawn, and a resumed run would differ."""
    rng, cut, refused = np.random.default_rng(0), 0, 0
    files = [file_of(**options) for options in CUT.values()]
    for number in range(1500):
        data, rows = damage(files[number % len(files)], rng), int(rng.integers(1, 150))
        if upper_rows(data, rows + jpeg.MARGIN) is None:
            continue
        found = decoded(data, (0, 0, rows, WIDTH))
        right = decoded(data)
        cut += 1
        if isinstance(right, str):
            refused += 1
            assert found == right
        else:
            assert np.array_equal(found[:rows], right[:rows])
    assert cut > 300
    assert refused > 3


def test_a_cut_hides_no_truncation_and_no_size(monkeypatch):
    data = file_of()
    for other in (data[:-1], data + b"\0", b"", data[:9]):
        assert upper_rows(other, 20) is None
    assert jpeg.upper_rows(data, 20, (HEIGHT + 1, WIDTH)) is None
    monkeypatch.setattr(jpeg, "most_megapixels", lambda: 0)
    assert upper_rows(data, 20) is None


@pytest.mark.parametrize("height", [65500, 65501])
def test_a_cut_hides_no_height_that_libjpeg_refuses(height):
    data = file_of()
    at = data.index(b"\xff\xc0") + 5
    data = data[:at] + height.to_bytes(2, "big") + data[at + 2 :]
    refused = jpeg.upper_rows(data, 20, (height, WIDTH)) is None
    assert refused == isinstance(decoded(data), str) == (height > 65500)


def test_no_marker_without_length_hides_where_the_frame_is():
    """Decoders go on right behind it: here to a frame, and a table that looks like another one."""
    data = file_of()
    table, at = data.index(b"\xff\xdb\0\x43\0"), data.index(b"\xff\xc0")
    frame, levels = data[at : at + 19], table + 5
    likeness = frame + b"\xff\xfe\0\x2b" + bytes([1] * 41)
    hidden = b"\xff\xd0\0\x1a" + frame + data[table:levels]
    data = data[:table] + hidden + likeness + data[levels + 64 : at] + data[at + 19 :]
    assert len(decoded(data)) == HEIGHT
    assert upper_rows(data, 20) is None
