"""Mask values become class ids; what stands for no class is named."""

import io
from collections.abc import Mapping

import numpy as np
import pytest
from PIL import Image
from warpseg import IGNORE
from warpseg.shards.masks.files import count_classes, encode_mask, read_mask, resize_mask
from warpseg.shards.masks.palette import default_palette
from warpseg.shards.masks.values import (
    MaskValues,
    binary_values,
    colour_values,
    grey_values,
    id_values,
)


def png(values: list[list[int]], mode: str = "L", kind: str = "PNG") -> bytes:
    array = np.array(values)
    if mode == "I;16":
        image = Image.fromarray(array.astype(np.uint16))
    elif mode == "1":
        image = Image.fromarray(array.astype(bool))
    else:
        image = Image.fromarray(array.astype(np.uint8))
        if mode == "P":
            image.putpalette([v for colour in default_palette(256) for v in colour])
        elif mode != "L":
            image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def rgb(colours: list[tuple[int, int, int]], mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.array([colours], np.uint8))
    image = image.quantize() if mode == "P" else image.convert(mode)
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB", "LA"])
def test_ids(mode: str) -> None:
    mask = id_values(3, ignored=[7]).read(png([[0, 1, 2], [255, 7, 0]], mode), "m")
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0, 1, 2], [IGNORE, IGNORE, 0]]


@pytest.mark.parametrize(
    ("data", "expected"),
    [(png([[0, 255]]), [[0, 1]]), (png([[0, 1]]), [[0, 1]]), (png([[0, 1]], "1"), [[0, 1]])],
)
def test_binary(data: bytes, expected: list[list[int]]) -> None:
    assert binary_values().read(data, "m").tolist() == expected


def test_grey_levels() -> None:
    values = grey_values([0, 128, 255], ignored=[64])
    assert values.read(png([[255, 0, 128, 64]]), "m").tolist() == [[2, 0, 1, IGNORE]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours(mode: str) -> None:
    values = colour_values([(0, 0, 0), (128, 0, 0), (0, 128, 0)], ignored=[(255, 255, 255)])
    colours = [(128, 0, 0), (255, 255, 255), (0, 0, 0), (0, 128, 0)]
    assert values.read(rgb(colours, mode), "m").tolist() == [[1, IGNORE, 0, 2]]


def test_sixteen_bit_id_map() -> None:
    values = MaskValues({0: 0, 1000: 1, 26001: 2, 65535: IGNORE})
    mask = values.read(png([[26001, 0, 1000, 65535]], "I;16"), "m")
    assert mask.tolist() == [[2, 0, 1, IGNORE]]


@pytest.mark.parametrize(
    ("values", "data", "message"),
    [
        (id_values(3), png([[3, 1, 9]]), r"^m\.png has the values 3, 9, .*known: 0-2, 255"),
        (id_values(3), png([[254]]), r"m\.png has the value 254, which stands? "),
        (id_values(3), png([[300]], "I;16"), r"m\.png has the value 300"),
        (binary_values(), png([[0, 2]]), r"value 2.*known: 0-1, 255"),
        (
            colour_values([(0, 0, 0), (1, 2, 3)]),
            rgb([(1, 2, 4)]),
            r"#010204.*known: #000000, #010203",
        ),
        (id_values(3), rgb([(9, 0, 0)]), r"m\.png is an RGB picture: .*--mask-values palette"),
        (id_values(3), png([[0, 1]], "1"), r"1 bit a pixel: say --mask-values binary"),
        (id_values(3), png([[0, 1]], kind="JPEG"), r"m\.png is a JPEG.*save masks as PNG"),
        (id_values(3), png([[0, 1]])[:40], r"m\.png cannot be decoded"),
    ],
)
def test_refused(values: MaskValues, data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        values.read(data, "m.png")


def test_fractions_are_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(buffer, "TIFF")
    with pytest.raises(ValueError, match=r"m\.tif holds float32 values"):
        id_values(3).read(buffer.getvalue(), "m.tif")


def test_many_wrong_values_are_counted() -> None:
    with pytest.raises(ValueError, match=r"10, 11, 12, 13, 14, 15, 16, 17 and 12 more, which"):
        id_values(10).read(png([list(range(10, 30))]), "m.png")


def test_stored_as_grey_ids() -> None:
    mask = np.array([[0, 20], [IGNORE, 3]], np.uint8)
    data = encode_mask(mask)
    assert Image.open(io.BytesIO(data)).mode == "L"
    assert np.array_equal(read_mask(data), mask)
    assert data == encode_mask(mask)


def test_resize_takes_the_nearest() -> None:
    mask = np.repeat(np.repeat(np.array([[1, 2], [IGNORE, 0]], np.uint8), 4, 0), 4, 1)
    assert resize_mask(mask, (2, 2)).tolist() == [[1, 2], [IGNORE, 0]]


def test_count() -> None:
    mask = np.array([[0, 0, 2], [IGNORE, IGNORE, IGNORE]], np.uint8)
    assert count_classes(mask, 3).tolist() == [2, 0, 1, 3]


def test_palette_is_vocs() -> None:
    assert default_palette(21)[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert default_palette(21)[20] == (0, 64, 128)
    assert len(set(default_palette(254))) == 254


def test_record_is_plain() -> None:
    record: Mapping[str, int] = colour_values([(0, 0, 0), (1, 2, 255)]).record()
    assert record == {"#000000": 0, "#0102ff": 1}
    assert id_values(2).record() == {"0": 0, "1": 1, "255": 255}
