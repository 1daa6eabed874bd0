"""Masks that can be read in two ways are read in the right one, or refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from warpseg import IGNORE
from warpseg.shards.masks.values import binary_values, colour_values, grey_values, id_values
from warpseg.shards.sources.voc import BORDER, mask_values

IDS = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
ROAD, SKY, NEAR_SKY = (128, 64, 128), (70, 130, 180), (71, 131, 181)
BLACK_WHITE = ((0, 0, 0), (255, 255, 255))


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def indexed(index, *colours):
    image = Image.fromarray(np.asarray(index, np.uint8), "P")
    image.putpalette([value for colour in colours for value in colour])
    return encoded(image)


def grey(*levels):
    return tuple((level,) * 3 for level in levels)


def grey_png(rows, bits):
    """A grey PNG of few bits a pixel, as optimisers write it."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    raw = b""
    for row in rows:
        packed = "".join(f"{value:0{bits}b}" for value in row)
        packed += "0" * (-len(packed) % 8)
        raw += b"\0" + int(packed, 2).to_bytes(len(packed) // 8, "big")
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("values", "data", "right"),
    [
        (id_values(2), indexed(IDS, *grey(0, 255)), IDS),
        (id_values(2), indexed(IDS, *grey(0, 1)), IDS),
        (id_values(2), indexed(IDS, (9, 8, 7), (1, 2, 3)), IDS),
        (id_values(2, (), (ROAD, SKY)), indexed(IDS, ROAD, SKY), IDS),
        (id_values(2, (), (ROAD, SKY)), indexed(IDS, (1, 2, 3), (250, 3, 4)), IDS),
        (id_values(2, (), (ROAD, SKY)), encoded(Image.fromarray(IDS)), IDS),
        (binary_values(), indexed(1 - IDS, *grey(255, 0)), IDS),
        (binary_values(), indexed(IDS, *grey(0, 1)), IDS),
        (binary_values(), encoded(Image.fromarray(IDS > 0)), IDS),
        (binary_values(), grey_png(IDS.tolist(), 1), IDS),
        (grey_values((0, 255)), indexed(1 - IDS, *grey(255, 0)), IDS),
        (grey_values((255, 0)), encoded(Image.fromarray(IDS > 0)), 1 - IDS),
        (grey_values((0, 85)), grey_png(IDS.tolist(), 2), IDS),
        (colour_values((ROAD, SKY)), indexed(1 - IDS, SKY, ROAD), IDS),
        (mask_values(), indexed(IDS, (0, 0, 0), (128, 0, 0)), IDS),
        (mask_values(), encoded(Image.fromarray(IDS)), IDS),
        (mask_values(), encoded(Image.fromarray(np.stack([IDS] * 3, 2))), IDS),
    ],
)
def test_the_reading_that_is_meant(values, data, right):
    assert (values.read(data, "m.png") == right).all()


def test_voc_in_colours():
    colours = np.array([(0, 0, 0), (128, 128, 128), BORDER], np.uint8)
    mask = mask_values().read(encoded(Image.fromarray(colours[[[0, 1, 2]]])), "m.png")
    assert mask.tolist() == [[0, 7, IGNORE]]


PLAIN = Image.fromarray(IDS)
TIFF_PAGES = encoded(PLAIN, "TIFF", save_all=True, append_images=[PLAIN])
CLEAR = Image.fromarray(np.dstack([IDS, np.full_like(IDS, 128)]), "LA")
BOTH = np.array([[0, 1, 255]], np.uint8)
TURNED = Image.fromarray(255 - IDS)


@pytest.mark.parametrize(
    ("values", "data", "words"),
    [
        # The palette says another class than the index.
        (id_values(2, (), (ROAD, SKY)), indexed(1 - IDS, SKY, ROAD), "colour of class 1"),
        (id_values(2, (), (ROAD, SKY)), indexed(1 - IDS, NEAR_SKY, ROAD), "colour of class 1"),
        (mask_values(), indexed(IDS, (128, 0, 0), (0, 0, 0)), "colour of class 1"),
        # Grey palettes: the shown level says another class.
        (id_values(2), indexed(1 - IDS, *grey(255, 0)), "its grey palette shows other values"),
        (id_values(3), indexed(IDS, *grey(0, 2)), "its grey palette shows other values"),
        (id_values(3), indexed(IDS, *grey(200, 100)), "its grey palette shows other values"),
        (binary_values(), indexed(IDS, ROAD, SKY), "indexed with colours, not grey levels"),
        # Values that may be ids or colours.
        (id_values(2, (), BLACK_WHITE), encoded(Image.fromarray(IDS * 255)), "ids or colours"),
        (id_values(3), grey_png(IDS.tolist(), 2), "2 bits a pixel"),
        (id_values(20), grey_png((IDS * 15).tolist(), 4), "4 bits a pixel"),
        (id_values(2), grey_png(IDS.tolist(), 1), "1 bit a pixel"),
        (binary_values(), encoded(Image.fromarray(BOTH)), "both 1 and 255"),
        # Files that cannot hold class ids.
        (id_values(2), TIFF_PAGES, "several pages"),
        (id_values(2), encoded(CLEAR), "transparent pixels"),
        (id_values(2), encoded(PLAIN.convert("RGB"), "WEBP"), "lossy WEBP"),
        (
            id_values(2),
            encoded(TURNED, "TIFF", tiffinfo={262: 0}),
            "white as 0|for no class",
        ),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(values, data, words):
    with pytest.raises(ValueError, match=rf"^m\.png .*({words})"):
        values.read(data, "m.png")


def test_a_palette_of_unknown_colours_is_said():
    values = id_values(2)
    values.read(indexed(IDS, (9, 8, 7), (1, 2, 3)), "m.png")
    assert values.take_remarks() == ["masks with a palette, read by index and not by colour"]
    assert values.take_remarks() == []
