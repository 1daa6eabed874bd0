"""PNGs whose lower rows nobody asks for: as with JPEGs, reading may end above them."""

import zlib

from .images import most_megapixels

_BEGIN = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"
"""Signature, and length and name of the first chunk, which begins with width and height."""
_INTERLACED = 28
"""Where that chunk says whether rows come in order, by 0."""
_ANIMATED, _LAST = b"acTL", b"IEND"


def goes_from_above(data: bytes, size: tuple[int, int]) -> bool:
    """Tell whether a PNG's rows can be had without those below, and no damage be hidden by that.

    Not so where rows are interlaced, of animations, where a chunk is not as it was written, of
    another size than (height, width), or of more pixels than allowed.
    """
    height, width = size
    begin = _BEGIN + width.to_bytes(4, "big") + height.to_bytes(4, "big")
    if not data.startswith(begin) or height * width > most_megapixels() * 10**6:
        return False
    return data[_INTERLACED : _INTERLACED + 1] == b"\0" and _is_whole(data)


def _is_whole(data: bytes) -> bool:
    """Tell whether chunks with the sums that they had when written reach from end to end."""
    view, at, kind = memoryview(data), 8, b""
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        sum_of_chunk = zlib.crc32(view[at + 4 : end]).to_bytes(4, "big")
        if kind == _ANIMATED or data[end : end + 4] != sum_of_chunk:
            return False
        at = end + 4
    return kind == _LAST
