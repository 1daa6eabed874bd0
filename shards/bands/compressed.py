"""How much compressed bytes become, known without the memory that they would take."""

from __future__ import annotations

import lzma
import zlib
from typing import Any

DEFLATE, LZMA = (8, 32946), 34925
"""Compressions that tifffile unpacks by Python's modules, without a bound."""
_SWELLS = 1032
"""Bytes that one of deflate becomes at most."""
PIECE = 2**20


def exceeds(data: bytes, compression: int, most: int) -> bool:
    """Tell whether compressed bytes become more than `most`, in pieces, so that no memory is needed
    for it. What is damaged is left to the decoder."""
    if compression in DEFLATE and len(data) * _SWELLS > most:
        unpack: Any = zlib.decompressobj()
    elif compression == LZMA:
        unpack = lzma.LZMADecompressor()
    else:
        return False
    size = 0
    try:
        while size <= most and not unpack.eof:
            piece = unpack.decompress(data, PIECE)
            data = unpack.unconsumed_tail if compression in DEFLATE else b""
            if not piece and not data:
                break
            size += len(piece)
    except (zlib.error, lzma.LZMAError):
        return False
    return size > most
