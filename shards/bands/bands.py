"""How many channels images have, of how many bits, and which levels occur in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...plain import counted
from ..outside.text import Reader, Wrong, fields, list_of, number

MOST = 16
"""Channels that an image may have."""
PLAIN = (3, 8)
"""Channels and bits of plain RGB, of which a manifest says nothing."""
EXTENSIONS = ("png", "tif", "npy")
"""Of members that hold such images."""

Row = tuple[float, float, float, float]
"""Of a channel: least and greatest level, their mean, their standard deviation."""


@dataclass(frozen=True, kw_only=True)
class Bands:
    """Channels of a data set's images, and their levels, 0 to 255 or 65535, over those that are
    trained on; no levels where nobody has counted them."""

    count: int
    bits: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def kind(self) -> tuple[int, int]:
        """Count and bits."""
        return self.count, self.bits

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of levels."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    @property
    def highest(self) -> int:
        """The level that is 1 in [0, 1]."""
        return 2**self.bits - 1

    def fits(self) -> bool:
        """Tell whether levels, where there are some, are those of each channel."""
        levels = (self.low, self.high, self.mean, self.std)
        return all(len(values) in (0, self.count) for values in levels)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {name: value for name, value in asdict(self).items() if value != ()}


def kind_words(kind: tuple[int, int]) -> str:
    """Say count and bits: 6 channels of 16 bits."""
    return f"{counted(kind[0], 'channel')} of {kind[1]} bits"


def kind_of(array: np.ndarray) -> tuple[int, int]:
    """Return channels and bits of an image (H, W, C)."""
    return array.shape[2], 8 * array.dtype.itemsize


def checked_image(array: np.ndarray, file: str) -> np.ndarray:
    """Return an image as (H, W, C), uint8 or uint16 in the machine's order of bytes.

    Raises ValueError for other types, shapes, and numbers of channels, with what to do.
    """
    refuse_type(array.dtype, file)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or not array.size:
        raise ValueError(f"{file} is an array {array.shape}: save it as (height, width, channels)")
    refuse_count(array.shape[2], file)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def refuse_type(dtype: np.dtype[Any], file: str) -> None:
    """Raise ValueError for levels that are not unsigned of 8 or 16 bits."""
    if dtype.kind == "u" and dtype.itemsize in (1, 2):
        return
    if dtype.kind == "f":
        raise ValueError(
            f"{file} holds {dtype.name} levels: bring all images alike to 16 bits, such as by "
            "gdal_translate -ot UInt16 -scale LOW HIGH 0 65535 IN.tif OUT.tif, LOW and HIGH being "
            "the range of all of them"
        )
    raise ValueError(
        f"{file} holds {dtype.name} levels: save unsigned ones of 8 or 16 bits, all images alike "
        "(gdal_translate -ot UInt16)"
    )


def refuse_count(count: int, file: str) -> None:
    """Raise ValueError for more channels than there may be."""
    if not 1 <= count <= MOST:
        raise ValueError(
            f"{file} has {count} channels, and an image may have 1 to {MOST}: choose some "
            "(gdal_translate -b 1 -b 2 ...; an array is height, width, channels)"
        )


def count_levels(image: np.ndarray) -> list[tuple[int, ...]]:
    """Return, for each channel of (H, W, C): pixels, least level, greatest, sum, sum of squares;
    whole numbers, so that sums of any order are equal."""
    rows = []
    for channel in range(image.shape[2]):
        levels = image[..., channel].ravel()
        wide = levels.astype(np.uint64)
        square = int(np.dot(wide, wide))
        rows.append((levels.size, int(levels.min()), int(levels.max()), int(wide.sum()), square))
    return rows


def sum_levels(images: Sequence[list[tuple[int, ...]]]) -> tuple[Row, ...]:
    """Return the levels of images, each channel's row rounded to what a float holds for sure."""
    rows = []
    for parts in zip(*images, strict=True):
        pixels, _, _, total, square = map(sum, zip(*parts, strict=True))
        mean = total / pixels
        variance = max(square * pixels - total * total, 0) / pixels**2
        low, high = min(part[1] for part in parts), max(part[2] for part in parts)
        rows.append((float(low), float(high), mean, variance**0.5))
    return tuple(rows)


def join_levels(parts: Sequence[tuple[int, tuple[Row, ...]]]) -> dict[str, tuple[float, ...]]:
    """Return the levels of several shards as fields of `Bands`; parts: pixels and rows of each."""
    if not parts:
        return {}
    pixels = sum(count for count, _ in parts)
    found: dict[str, list[float]] = {"low": [], "high": [], "mean": [], "std": []}
    for rows in zip(*(rows for _, rows in parts), strict=True):
        weighted = list(zip((count for count, _ in parts), rows, strict=True))
        mean = sum(count * row[2] for count, row in weighted) / pixels
        square = sum(count * (row[3] ** 2 + (row[2] - mean) ** 2) for count, row in weighted)
        found["low"].append(min(row[0] for row in rows))
        found["high"].append(max(row[1] for row in rows))
        found["mean"].append(round(mean, 4))
        found["std"].append(round((square / pixels) ** 0.5, 4))
    return {name: tuple(values) for name, values in found.items()}


def _level(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= 65535:
        raise Wrong(f"is {value!r}, no level from 0 to 65535")
    return float(value)


_COUNT = number(1, MOST)


def _bits(value: Any) -> int:
    if value not in (8, 16):
        raise Wrong(f"is {value!r}, not 8 or 16")
    return value


LEVELS: Reader = list_of(list_of(_level, (4,)))
"""Reads the rows of a shard."""
FORM: Reader = fields(
    {"count": _COUNT, "bits": _bits},
    {name: list_of(_level) for name in ("low", "high", "mean", "std")},
)
"""Reads what a manifest says of channels."""


def plain_bands(values: Any) -> Bands | None:
    """Return the channels that plain values say, None for none. Raises ValueError for others."""
    if values is None:
        return None
    bands = Bands(**FORM(values))
    if not bands.fits():
        raise ValueError(f"its {bands.count} channels have levels of another number")
    return bands
