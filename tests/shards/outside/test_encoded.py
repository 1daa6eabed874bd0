"""A file that some decoders refuse, or read otherwise, is encoded anew; all others are copied."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from warpseg.shards.images import open_image, pack_image, read_rgb
from warpseg.shards.outside.encoded import fault_of

Y, X = np.mgrid[:24, :32]
PIXELS = np.stack([X * 8, Y * 10, (X + Y) * 4], 2).astype(np.uint8)
PICTURE = Image.fromarray(PIXELS)


def encoded(kind, image=PICTURE, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


JPEG = encoded("JPEG", quality=90)
PNG = encoded("PNG")


def segment(marker, body, data=JPEG):
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + data[2:]


def chunk(name, data):
    total = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + total


def deep_png():
    rows = b"".join(
        b"\0" + row.astype(">u2").tobytes() for row in PIXELS.reshape(24, -1) * np.uint16(257)
    )
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 24, 16, 2, 0, 0, 0))
    return PNG[:8] + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        JPEG,
        PNG,
        encoded("JPEG", progressive=True),
        encoded("JPEG", PICTURE.convert("L")),
        encoded("JPEG", subsampling=2, restart_marker_rows=1),
        segment(0xFE, b"a comment"),
        segment(0xE1, b"Exif\0\0garbage"),
        JPEG + b"behind the end",
        PNG[:33] + chunk(b"tEXt", b"a\0b") + PNG[33:],
        encoded("WEBP"),
    ],
)
def test_what_all_read_alike_is_copied(data):
    remarks = []
    assert pack_image(data, "a", remarks=remarks)[1] is data
    assert remarks == []


AT = JPEG.find(b"\xff\xdb")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (JPEG[:AT] + bytes(7) + JPEG[AT:], "stray bytes between its segments"),
        (JPEG[:AT] + b"\xff\xff" + JPEG[AT:], "stray bytes between its segments"),
        (segment(0xEE, b"Adobe\0d"), "a segment that is cut short"),
        (encoded("JPEG", keep_rgb=True), "RGB in place of YCbCr"),
        (PNG[:-12], "a missing end"),
        (deep_png(), "16 bits a channel"),
        (encoded("PNG", PICTURE.convert("1")), ""),
        (encoded("PNG", PICTURE.convert("L"), transparency=3), "transparency"),
        (encoded("PNG", PICTURE.convert("1"), transparency=1), "transparency"),
        (encoded("PNG", PICTURE.convert("RGBA")), ""),
        (encoded("PNG", Image.new("RGBA", (4, 4), (1, 2, 3, 4))), "transparency"),
        (encoded("JPEG", PICTURE.convert("CMYK")), "CMYK"),
        (encoded("WEBP", save_all=True, append_images=[PICTURE.rotate(9)]), "several pages"),
        (encoded("PNG", save_all=True, append_images=[PICTURE.rotate(9)]), "several pages"),
        (encoded("TIFF", save_all=True, append_images=[PICTURE]), "several pages"),
        (encoded("GIF", save_all=True, append_images=[PICTURE.rotate(9)]), "several pages"),
    ],
)
def test_others_are_encoded_anew_and_said(data, words):
    remarks = []
    extension, packed, _ = pack_image(data, "a", remarks=remarks)
    assert packed != data
    assert words in " ".join(remarks)
    assert bool(words) == bool(remarks)
    assert fault_of(packed, {"jpg": "JPEG", "png": "PNG"}[extension]) == ""
    before = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)
    assert np.abs(read_rgb(packed, extension) - before).mean() < 3


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\nshowpage\n",
        b"#define a_width 1\n#define a_height 1\nstatic char a_bits[] = {0};\n",
        encoded("ICO"),
        encoded("PCX"),
        encoded("TGA"),
        segment(0xE1, b"")[:40],
    ],
)
def test_only_the_formats_listed_are_opened(data):
    with pytest.raises(ValueError, match=r"^a\.png cannot be decoded"):
        open_image(data, "a.png")


def test_a_targa_is_known_by_its_suffix():
    assert open_image(encoded("TGA"), "dir/a.TGA").size == (32, 24)


@pytest.mark.parametrize(
    "header", [b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999, 99999999, 3)}", b"("]
)
def test_an_array_that_claims_too_much(header):
    data = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header) + 1) + header + b"\n"
    with pytest.raises(ValueError, match=r"^a cannot be decoded"):
        read_rgb(data, "npy", "a")
