"""PNGs whose lower rows nobody asks for: as with JPEGs, reading may end above them."""

import zlib

from .images import most_megapixels

_BEGIN = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"
"""Signature, and length and name of the first chunk."""
_FRAME = slice(12, 29)
"""Bytes of that chunk's name and values: width and height (4 bytes each), depth, kind of colour,
compression, filter, and whether rows are interlaced."""
_ANIMATED, _LAST = b"acTL", b"IEND"


def upper_rows(data: bytes, rows: int, size: tuple[int, int]) -> bytes:
    """Return a PNG of the upper `rows` rows of one, with the same pixels.

    It is `data` itself where that would not hold, or would hide that the rest is damaged: rows that
    are interlaced, animations, a chunk that is not as it was written, another size than `size`
    (height, width), or more pixels than allowed.
    """
    frame = data[_FRAME]
    width, height = (int.from_bytes(frame[at : at + 4], "big") for at in (4, 8))
    if not data.startswith(_BEGIN) or (height, width) != size or frame[-1] != 0:
        return data
    if rows >= height or width * height > most_megapixels() * 10**6 or not _is_whole(data):
        return data
    frame = frame[:8] + rows.to_bytes(4, "big") + frame[12:]
    return data[: _FRAME.start] + frame + _sum_of(frame) + data[_FRAME.stop + 4 :]


def _is_whole(data: bytes) -> bool:
    """Tell whether chunks with the sums that they had when written reach from end to end."""
    view, at, kind = memoryview(data), 8, b""
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if kind == _ANIMATED or data[end : end + 4] != _sum_of(view[at + 4 : end]):
            return False
        at = end + 4
    return kind == _LAST


def _sum_of(chunk: bytes | memoryview) -> bytes:
    return zlib.crc32(chunk).to_bytes(4, "big")
