"""Maps of one value a pixel, written row by row: tiled TIFF, with a georeference, and PNG.

Rows come from above to below, in pieces of any height; no more than a row of tiles is in memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Any, BinaryIO, Protocol

import numpy as np

from .geo import DOUBLES, GeoTags

TILE = 256
"""Pixels a side of a tile."""
LEVEL = 4
"""Of deflate: maps of classes are small at any."""
_BYTE, _ASCII, _SHORT, _LONG, _DOUBLE, _LONG8 = 1, 2, 3, 4, 12, 16
_SIZES = {_BYTE: 1, _ASCII: 1, _SHORT: 2, _LONG: 4, _DOUBLE: 8, _LONG8: 8}
_LETTERS = {_BYTE: "B", _SHORT: "H", _LONG: "I", _DOUBLE: "d", _LONG8: "Q"}
_CLASSIC = 2**32 - 2**24
"""Bytes of tiles up to which offsets of 32 bits will do."""


class RowWriter(Protocol):
    """Takes the rows of a map."""

    def add(self, rows: np.ndarray) -> None:
        """Take the next rows, uint8 (h, width)."""
        ...

    def finish(self) -> None:
        """Write what closes the file, once all rows are there."""
        ...


class TiffRows:
    """A TIFF of tiles, deflated; a BigTIFF where it may become larger than 4 GiB.

    file: open for writing, at its start. palette: colours (256, 3) uint8 of the values, None for
    grey. geo: where on the earth the map lies.
    """

    def __init__(
        self,
        file: BinaryIO,
        size: tuple[int, int],
        palette: np.ndarray | None = None,
        geo: GeoTags | None = None,
    ) -> None:
        self._file, (self._height, self._width) = file, size
        self._palette, self._geo = palette, geo or {}
        self._big = -(-size[0] // TILE) * -(-size[1] // TILE) * (TILE**2 + 1024) > _CLASSIC
        self._offsets: list[int] = []
        self._sizes: list[int] = []
        self._waiting = np.zeros((TILE, -(-self._width // TILE) * TILE), np.uint8)
        self._filled = self._taken = 0
        # Where the first directory lies is known, and written, at the end.
        file.write(b"II+\0\x08\0\0\0" + bytes(8) if self._big else b"II*\0" + bytes(4))

    def add(self, rows: np.ndarray) -> None:
        """Take the next rows, uint8 (h, width)."""
        while len(rows):
            room = min(TILE - self._filled, len(rows))
            self._waiting[self._filled : self._filled + room, : self._width] = rows[:room]
            self._filled, self._taken, rows = self._filled + room, self._taken + room, rows[room:]
            if self._filled == TILE:
                self._write_tiles()

    def finish(self) -> None:
        """Write the last tiles and the directory. Raises ValueError where rows are missing."""
        _check_rows(self._taken, self._height)
        if self._filled:
            self._waiting[self._filled :] = 0
            self._write_tiles()
        self._write_directory()

    def _write_tiles(self) -> None:
        for left in range(0, self._waiting.shape[1], TILE):
            data = zlib.compress(self._waiting[:, left : left + TILE].tobytes(), LEVEL)
            self._offsets.append(self._file.tell())
            self._sizes.append(len(data))
            self._file.write(data)
        self._filled = 0

    def _tags(self) -> dict[int, tuple[int, Any]]:
        """Return kind and values of each tag by its code."""
        place = _LONG8 if self._big else _LONG
        tags: dict[int, tuple[int, Any]] = {
            256: (_LONG, (self._width,)),
            257: (_LONG, (self._height,)),
            258: (_SHORT, (8,)),
            259: (_SHORT, (8,)),  # deflate
            262: (_SHORT, (1 if self._palette is None else 3,)),
            277: (_SHORT, (1,)),
            305: (_ASCII, b"warpseg\0"),
            322: (_SHORT, (TILE,)),
            323: (_SHORT, (TILE,)),
            324: (place, self._offsets),
            325: (_LONG, self._sizes),
            339: (_SHORT, (1,)),  # unsigned
        }
        if self._palette is not None:
            tags[320] = (_SHORT, [257 * int(level) for level in self._palette.T.ravel()])
        for code, value in self._geo.items():
            if isinstance(value, str):
                tags[code] = (_ASCII, value.encode("latin-1", "replace").rstrip(b"\0") + b"\0")
            else:
                tags[code] = (_DOUBLE if code in DOUBLES else _SHORT, value)
        return tags

    def _write_directory(self) -> None:
        width, letter = (8, "Q") if self._big else (4, "I")
        rows = []
        for code, (kind, values) in sorted(self._tags().items()):
            count = len(values)
            data = values if kind == _ASCII else struct.pack(f"<{count}{_LETTERS[kind]}", *values)
            if len(data) > width:
                self._align()
                at = self._file.tell()
                self._file.write(data)
                data = struct.pack(f"<{letter}", at)
            rows.append(struct.pack(f"<HH{letter}", code, kind, count) + data.ljust(width, b"\0"))
        self._align()
        at = self._file.tell()
        head = struct.pack("<Q" if self._big else "<H", len(rows))
        self._file.write(head + b"".join(rows) + bytes(width))
        self._file.seek(8 if self._big else 4)
        self._file.write(struct.pack(f"<{letter}", at))

    def _align(self) -> None:
        self._file.write(bytes(-self._file.tell() % 8))


class PngRows:
    """A PNG of one value of 8 bits a pixel, indexed where there is a palette; see `TiffRows`."""

    def __init__(
        self, file: BinaryIO, size: tuple[int, int], palette: np.ndarray | None = None
    ) -> None:
        self._file, (self._height, self._width) = file, size
        self._packer, self._taken = zlib.compressobj(LEVEL), 0
        kind = 0 if palette is None else 3
        file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], 8, kind, 0, 0, 0))
        if palette is not None:
            self._chunk(b"PLTE", palette.astype(np.uint8).tobytes())

    def add(self, rows: np.ndarray) -> None:
        """Take the next rows, uint8 (h, width)."""
        self._taken += len(rows)
        unfiltered = np.zeros((len(rows), self._width + 1), np.uint8)
        unfiltered[:, 1:] = rows
        if data := self._packer.compress(unfiltered.tobytes()):
            self._chunk(b"IDAT", data)

    def finish(self) -> None:
        """Write the rest. Raises ValueError where rows are missing."""
        _check_rows(self._taken, self._height)
        self._chunk(b"IDAT", self._packer.flush())
        self._chunk(b"IEND", b"")

    def _chunk(self, name: bytes, data: bytes) -> None:
        total = zlib.crc32(data, zlib.crc32(name))
        self._file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", total))


def write_rows(writer: RowWriter, rows: Iterable[np.ndarray]) -> None:
    """Write a whole map."""
    for part in rows:
        writer.add(part)
    writer.finish()


def _check_rows(taken: int, height: int) -> None:
    if taken != height:
        raise ValueError(f"{taken} rows were written of a map of {height}")
