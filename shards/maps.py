"""Maps that networks make, labels and confidences, as members of a shard: PNG or zstd.

PNG everyone reads; zstd (an NPY file, compressed) costs a fraction of the processor time.
"""

import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from PIL import Image

from .images import first_line
from .masks.files import read_mask

MapEncoding = Literal["png", "zstd"]
ENDINGS: dict[str, MapEncoding] = {"png": "png", "npy.zst": "zstd"}
"""Endings of members, and how they are encoded."""
_PNG_LEVEL, _ZSTD_LEVEL = 1, 1
"""Higher levels save a tenth of the bytes and take several times as long."""
_RLE = 3
"""zlib's Z_RLE: runs alone are looked for, which is what maps consist of."""
_LARGEST = 2**31


def ending_of(encoding: MapEncoding) -> str:
    """Return the ending of members of an encoding."""
    return next(ending for ending, name in ENDINGS.items() if name == encoding)


def member_of(parts: Mapping[str, Any], name: str) -> str | None:
    """Return the extension under which a sample holds a map, as label.png; None where it has
    none."""
    return next((f"{name}.{ending}" for ending in ENDINGS if f"{name}.{ending}" in parts), None)


def encode_map(values: np.ndarray, encoding: MapEncoding = "png") -> bytes:
    """Encode uint8 (H, W). Raises RuntimeError where zstd is asked for and not installed."""
    buffer = io.BytesIO()
    if encoding == "png":
        picture = Image.fromarray(values)
        picture.save(buffer, "PNG", compress_level=_PNG_LEVEL, compress_type=_RLE)
        return buffer.getvalue()
    np.save(buffer, values, allow_pickle=False)
    return _zstandard().ZstdCompressor(level=_ZSTD_LEVEL).compress(buffer.getvalue())


def decode_map(data: bytes, extension: str, file: str) -> np.ndarray:
    """Decode a member to uint8 (H, W). Raises ValueError naming `file` where it is damaged."""
    if extension.endswith(".png"):
        return read_mask(data, file)
    zstandard = _zstandard()
    try:
        # A frame that states its size is given that much memory, whatever the limit is.
        if zstandard.frame_content_size(data) > _LARGEST:
            raise ValueError(f"it claims more than {_LARGEST} bytes")
        plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=_LARGEST)
        values = np.load(io.BytesIO(plain), allow_pickle=False)
    except (zstandard.ZstdError, ValueError, OSError, EOFError, SyntaxError) as error:
        raise ValueError(f"{file} cannot be decoded ({first_line(error)})") from error
    if not isinstance(values, np.ndarray) or values.dtype != np.uint8 or values.ndim != 2:
        raise ValueError(f"{file} is no array of uint8 (H, W)")
    return values


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise RuntimeError(
            'maps encoded as zstd need zstandard: pip install "warpseg[zstd]"'
        ) from None
    return zstandard
