"""TIFF by tifffile: images of any channels, whole or by windows, without the rest in memory."""

from __future__ import annotations

import io
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .bands import checked_image
from .compressed import DEFLATE, LZMA, PIECE, exceeds
from .geo import GeoTags, read_geo
from .pages import (
    Pages,
    axes_of,
    channels_last,
    channels_of,
    check_pages,
    is_aside,
    orientation_of,
)

INSTALL = 'pip install "warpseg[tiff]"'
CACHED = 2**28
"""Bytes of decoded tiles or strips that are kept, and of the largest that may be one."""
_SILENT = logging.NullHandler()
"""For the reader's doubts about a file, which are no sentence for who reads ours."""


def require() -> ModuleType:
    """Return tifffile. Raises RuntimeError, with the line that installs it, where it is missing."""
    try:
        import tifffile
    except ImportError:
        raise RuntimeError(
            f"TIFF of other images than 8-bit grey and RGB needs tifffile; run: {INSTALL}"
        ) from None
    logging.getLogger("tifffile").addHandler(_SILENT)
    return tifffile


def has_tifffile() -> bool:
    """Tell whether tifffile is installed."""
    try:
        require()
    except RuntimeError:
        return False
    return True


class TooLarge(Exception):
    """A file has more pixels than may be decoded at once; the words are "(N pixels)"."""


class TiffImage:
    """An open TIFF, of whose image windows are read: `shape` is (H, W, C), `dtype` uint8 or uint16,
    `geo` its georeference.

    source: a file, or its bytes. file: what errors call it. pages: what several pages are.
    any_type: take other types, too, for masks. Overviews and masks among the pages do not count.
    Raises ValueError for what cannot be read so, in words.
    """

    def __init__(
        self,
        source: Path | bytes,
        file: str = "",
        pages: Pages = "refuse",
        *,
        any_type: bool = False,
    ) -> None:
        self.file = file or str(source)
        opened: Any = io.BytesIO(source) if isinstance(source, bytes) else source
        try:
            self._tiff = require().TiffFile(opened)
            self._pages = [page for page in self._tiff.pages if not is_aside(page)]
        except RuntimeError:
            raise
        except Exception as error:  # of damaged files tifffile raises many kinds
            raise self._damaged(error) from error
        try:
            check_pages(self._pages, self.file, pages, any_type)
        except ValueError:
            self.close()
            raise
        first = self._pages[0]
        channels = sum(channels_of(page) for page in self._pages)
        self.shape = (int(first.imagelength), int(first.imagewidth), channels)
        self.dtype = np.dtype(first.dtype)
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], tuple[np.ndarray | None, Any]] = OrderedDict()
        self._held = 0

    @property
    def geo(self) -> GeoTags:
        """The georeference, empty without one."""
        return read_geo(self._pages[0])

    @property
    def alone(self) -> bool:
        """Whether the image is the one page that the file holds."""
        return len(self._tiff.pages) == 1

    @property
    def compression(self) -> int:
        """The number of its compression: 1 for none, 8 for deflate."""
        return int(self._pages[0].compression)

    @property
    def palette(self) -> np.ndarray | None:
        """The colours (256, 3) uint8 of an image of indices, None of others."""
        colours = self._pages[0].colormap if self._pages[0].photometric == 3 else None
        return None if colours is None else (np.asarray(colours).T >> 8).astype(np.uint8)

    @property
    def inverted(self) -> bool:
        """Whether its greatest level is black."""
        return self._pages[0].photometric == 0

    @property
    def orientation(self) -> int:
        """How the picture is to be turned, 1 for not at all."""
        return orientation_of(self._pages[0])

    def whole(self) -> np.ndarray:
        """Return the whole image, (H, W, C)."""
        for page in self._pages:
            if page.compression in (*DEFLATE, LZMA):
                for index in range(len(page.dataoffsets)):
                    self._stored(page, index)
        try:
            planes = [
                channels_last(page.asarray(maxworkers=1), axes_of(page)) for page in self._pages
            ]
        except Exception as error:
            raise self._damaged(error) from error
        return checked_image(
            planes[0] if len(planes) == 1 else np.concatenate(planes, 2), self.file
        )

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a window inside the image, (height, width, C)."""
        window = np.zeros((height, width, self.shape[2]), self.dtype)
        begin = 0
        for number, page in enumerate(self._pages):
            channels = channels_of(page)
            part = window[..., begin : begin + channels]
            if not self._mapped(page, part, top, left):
                for index in self._segments(page, channels, top, left, height, width):
                    self._put(number, index, part, top, left)
            begin += channels
        return window

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()

    def __del__(self) -> None:
        if hasattr(self, "_tiff"):
            self.close()

    def _mapped(self, page: Any, part: np.ndarray, top: int, left: int) -> bool:
        """Fill a window out of a page that lies in the file in one piece, as it is; tell whether it
        does. Such a page may be one strip, and larger than the memory."""
        rows = page.tilelength if page.is_tiled else page.rowsperstrip
        if page.is_tiled or rows < page.imagelength or not page.is_memmappable:
            return False
        path = self._tiff.filehandle.path
        if not path or page.planarconfig == 2:
            return False
        shape = (page.imagelength, page.imagewidth, channels_of(page))
        dtype = self.dtype.newbyteorder(self._tiff.byteorder)
        try:
            levels = np.memmap(path, dtype, "r", page.dataoffsets[0], shape)
        except (OSError, ValueError) as error:  # the file ends too early
            raise self._damaged(error) from error
        part[:] = levels[top : top + part.shape[0], left : left + part.shape[1]]
        return True

    def _segments(
        self, page: Any, channels: int, top: int, left: int, height: int, width: int
    ) -> Iterator[int]:
        """Yield the numbers of the tiles or strips that show a window."""
        tall, wide = page.imagelength, page.imagewidth
        step = (
            (page.tilelength, page.tilewidth)
            if page.is_tiled
            else (min(page.rowsperstrip, tall), wide)
        )
        planes = channels if page.planarconfig == 2 else 1
        size = step[0] * step[1] * (channels // planes) * self.dtype.itemsize
        if size > CACHED:
            raise ValueError(
                f"{self.file} is compressed in pieces of {size >> 20} MiB, which windows cannot be "
                "read of: write it in tiles (gdal_translate -co TILED=YES IN.tif OUT.tif)"
            )
        down, along = -(-tall // step[0]), -(-wide // step[1])
        for plane in range(planes):
            for row in range(top // step[0], -(-(top + height) // step[0])):
                for column in range(left // step[1], -(-(left + width) // step[1])):
                    yield plane * down * along + row * along + column

    def _put(self, number: int, index: int, part: np.ndarray, top: int, left: int) -> None:
        """Copy what a tile or strip shows of a window."""
        levels, (plane, _, row, column, _) = self._decoded(number, index)
        if levels is None:  # a tile that was never written
            return
        levels = levels[0]
        row, column = row - top, column - left
        height, width = levels.shape[:2]
        first, last = max(row, 0), min(row + height, part.shape[0])
        begin, end = max(column, 0), min(column + width, part.shape[1])
        if first >= last or begin >= end:
            return
        shown = levels[first - row : last - row, begin - column : end - column]
        separate = self._pages[number].planarconfig == 2
        target = part[..., plane : plane + 1] if separate else part
        target[first:last, begin:end] = shown

    def _decoded(self, number: int, index: int) -> tuple[np.ndarray | None, Any]:
        """Return a tile or strip (1, h, w, c), and where it lies; few are decoded again."""
        with self._lock:
            if (number, index) in self._kept:
                self._kept.move_to_end((number, index))
                return self._kept[number, index]
            found = self._decode(self._pages[number], index)
            self._kept[number, index] = found
            self._held += 0 if found[0] is None else found[0].nbytes
            while self._held > CACHED and len(self._kept) > 1:
                gone, _ = self._kept.popitem(last=False)[1]
                self._held -= 0 if gone is None else gone.nbytes
            return found

    def _decode(self, page: Any, index: int) -> tuple[np.ndarray | None, Any]:
        data = self._stored(page, index)
        try:
            tables = {} if page.jpegtables is None else {"jpegtables": page.jpegtables}
            levels, place, shape = page.decode(data, index, **tables)
        except Exception as error:
            raise self._damaged(error) from error
        return (None if levels is None else levels[:, : shape[1], : shape[2]]), place

    def _stored(self, page: Any, index: int) -> bytes | None:
        """Return a tile or strip as it lies in the file, None where it was never written.

        Raises ValueError where it would become more than such a tile is.
        """
        handle, size = self._tiff.filehandle, page.databytecounts[index]
        try:
            handle.seek(page.dataoffsets[index])
            data = handle.read(size) if size else None
        except (OSError, ValueError) as error:
            raise self._damaged(error) from error
        most = math.prod(page.chunks) * np.dtype(page.dtype).itemsize
        if data and exceeds(data, int(page.compression), 2 * most + PIECE):
            raise self._damaged(ValueError(f"a piece of {most} bytes would become many more"))
        return data

    def _damaged(self, error: Exception) -> ValueError:
        reason = str(error).split("\n")[0] or type(error).__name__
        # tifffile asks imagecodecs first, then modules of Python that not every version has.
        if "imagecodecs" in reason or isinstance(error, ImportError):
            return ValueError(
                f"{self.file} is compressed in a way that needs imagecodecs: {INSTALL}, or save it "
                "with deflate (gdal_translate -co COMPRESS=DEFLATE)"
            )
        return ValueError(f"{self.file} cannot be decoded ({reason}): replace or remove it")


def read_tiff(
    data: bytes, file: str, pages: Pages = "refuse", most: float = math.inf
) -> np.ndarray:
    """Decode a TIFF to (H, W, C), uint8 or uint16. Raises as `TiffImage`, and `TooLarge` for more
    pixels than `most`."""
    image = TiffImage(data, file, pages)
    try:
        if image.shape[0] * image.shape[1] > most:
            raise TooLarge(f"({image.shape[0] * image.shape[1]} pixels)")
        return image.whole()
    finally:
        image.close()


def is_plain(image: TiffImage) -> bool:
    """Tell whether a file is one page, not compressed or deflated: read without imagecodecs."""
    return image.alone and image.compression in (1, *DEFLATE)


def write_tiff(image: np.ndarray) -> bytes:
    """Encode (H, W, C) as a TIFF of one page, deflated, without loss."""
    buffer = io.BytesIO()
    require().imwrite(
        buffer,
        image[..., 0] if image.shape[2] == 1 else image,
        photometric="minisblack",
        planarconfig=None if image.shape[2] == 1 else "contig",
        compression="zlib",
        compressionargs={"level": 6},
        predictor=True,
        metadata=None,
        software=False,
    )
    return buffer.getvalue()
