"""Encoded images that every decoder reads alike: Pillow, DALI on the CPU and nvJPEG on the GPU.

Pillow and browsers forgive much that a decoder of a GPU does not, or reads otherwise; such a file
is encoded anew when it is packed. Only headers are looked at here: the pixels were decoded before.
"""

import re

from PIL import features

_AVIF = "avif" in features.modules and features.check("avif")
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".gif", ".tga"),
    *((".avif",) if _AVIF else ()),
)
"""Suffixes of files that are taken for images in a source's folders."""
ARRAY_SUFFIXES = (".npy",)
"""Suffixes of those that are taken for images where there are no others."""
FORMATS = (
    *("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF"),
    *(("AVIF",) if _AVIF else ()),
)
"""What Pillow may take a file for, whatever its suffix: its other readers start other programs, or
are hardly ever looked at."""
_START_OF_FRAME = (0xC0, 0xC1, 0xC2)
"""Baseline, extended and progressive Huffman coding; the others are hardly known."""
CODINGS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Markers of a JPEG's frames, each of which is for a coding of its own."""
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]", re.DOTALL)
"""What ends the entropy-coded data of a scan."""


def fault_of(data: bytes, kind: str) -> str:
    """Return why decoders may disagree on a file of `kind` (Pillow's format), or nothing."""
    if kind in ("JPEG", "MPO"):
        return _fault_of_jpeg(data)
    if kind == "PNG":
        return _fault_of_png(data)
    return ""


def grey_bits(data: bytes) -> int:
    """Return the bits a pixel of a grey PNG, 0 for other files."""
    grey = data[:4] == b"\x89PNG" and data[25:26] == b"\0"
    return data[24] if grey else 0


def is_lossy(data: bytes, kind: str, compression: object = "") -> bool:
    """Tell whether a file's encoding alters pixels: no place for class ids."""
    if kind == "WEBP":
        return b"VP8 " in data[12:16] or (data[12:16] == b"VP8X" and b"VP8 " in data[:4096])
    return kind in ("JPEG", "MPO", "AVIF") or compression in ("jpeg", "tiff_jpeg", "webp")


def _fault_of_png(data: bytes) -> str:
    depth, colour = data[24], data[25]
    if depth == 16:
        return "16 bits a channel"
    if depth != 8 or colour not in (0, 2):
        return "fewer than 8 bits a channel"
    at = 8
    while at < len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return ""
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return "a missing end"


def _fault_of_jpeg(data: bytes) -> str:
    try:
        return _walk_jpeg(data)
    except IndexError:
        return "a missing end"


def _walk_jpeg(data: bytes) -> str:
    """Go from segment to segment; IndexError where the file ends before its end marker."""
    at, components, plain = 2, 3, True
    while True:
        if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):
            return "stray bytes between its segments"
        marker = data[at + 1]
        if marker == 0xD9:
            return "" if plain else "RGB in place of YCbCr"
        if marker in (0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            return "stray bytes between its segments"
        length = data[at + 2] * 256 + data[at + 3]
        body = data[at + 4 : at + 2 + length]
        if length < 2 or len(body) != length - 2:
            return "stray bytes between its segments"
        at += 2 + length
        if marker in CODINGS:
            if marker not in _START_OF_FRAME or body[0] != 8:
                return "a rare coding"
            components = body[5]
        elif marker == 0xEE and body.startswith(b"Adobe"):
            if len(body) < 12:
                return "a segment that is cut short"
            plain = components != 3 or body[11] != 0
        elif marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) < 14:
            return "a segment that is cut short"
        elif marker == 0xDA:
            found = _NEXT_MARKER.search(data, at)
            if found is None:
                return "a missing end"
            at = found.start()
