"""JPEGs whose lower rows nobody asks for: they are decoded from above, so that reading may end."""

import re
from collections.abc import Iterator

import numpy as np

from .images import most_megapixels
from .outside.encoded import CODINGS

SCAN = 0xDA
"""Marker of the segment after which pixels come, and no segments of applications."""
_HEAD = re.compile(rb"\xff[\xc0-\xcf\xda-\xfe]..", re.DOTALL)
"""Marker and length of a segment; markers from 0xD0 to 0xD9 have none."""
_BASELINE = (0xC0, 0xC1)
"""Markers of frames that one scan fills row by row, by Huffman's codes."""
MARGIN = 16
"""Rows at the end of a shortened file that may differ: colours stored at half size read across."""
_TALLEST = 65500
"""Rows above which libjpeg refuses a file."""


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and first byte of a JPEG's segments, the first scan's last; ValueError where
    other bytes lie between them, or a marker that begins none."""
    at, marker = 2, 0
    while marker != SCAN:
        if not _HEAD.match(data, at):
            raise ValueError("stray bytes between segments")
        marker = data[at + 1]
        yield marker, at
        at = after(data, at)


def after(data: bytes, at: int) -> int:
    """Return the byte behind the segment at a byte of a JPEG."""
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def upper_rows(data: bytes, rows: int, size: tuple[int, int]) -> bytes | None:
    """Return a JPEG of the upper rows of one of a size (height, width), with the same pixels in all
    but the last MARGIN of them.

    It is None where that would not hold, or would hide that the rest is damaged: progressive files,
    several scans, any marker where none belongs, another size, more pixels than allowed.
    """
    try:
        places = list(segments(data))
    except ValueError:
        return None
    frames = [at for marker, at in places if marker in CODINGS]
    if len(frames) != 1 or data[frames[0] + 1] not in _BASELINE:
        return None
    at = frames[0] + 5
    height, width = (int.from_bytes(data[i : i + 2], "big") for i in (at, at + 2))
    most = min(_TALLEST, most_megapixels() * 10**6 // max(width, 1))
    fits = (height, width) == size and rows < height <= most
    if not fits or not _is_whole(data[after(data, places[-1][1]) :]):
        return None
    return data[:at] + rows.to_bytes(2, "big") + data[at + 2 :]


def _is_whole(scan: bytes) -> bool:
    """Tell whether coded pixels reach the end of the file, with no marker but those that restart
    the coding: then no decoder finds fault with them."""
    levels = np.frombuffer(scan, np.uint8)
    marks = levels[1:][np.flatnonzero(levels[:-1] == 0xFF)]
    inner = marks[:-1]
    restarts = (inner >= 0xD0) & (inner <= 0xD7)
    return scan.endswith(b"\xff\xd9") and bool((restarts | (inner == 0)).all())
