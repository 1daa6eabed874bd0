"""JPEGs by TorchCodec, where it is asked for: Pillow's pixels.

Both decode by libjpeg-turbo, but Pillow then copies each pixel into four bytes of its own. What
that costs depends on the machine: `warpseg bench pipeline` measures both.
"""

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from ...shards import Sample
from ...shards.images import PACKED, open_image
from ...shards.jpeg import after, segments
from ...shards.outside.turning import ORIENTATION

INSTALL = 'pip install "warpseg[jpeg]"'
_TRIED = ({"quality": 90}, {"quality": 75, "progressive": True}, {"quality": 95, "subsampling": 0})
"""Kinds of JPEG whose pixels are compared before TorchCodec is used."""


def read_jpeg(sample: Sample) -> np.ndarray | None:
    """Decode a sample's JPEG to RGB, uint8 (H, W, 3), read-only; None where Pillow is to do it:
    TorchCodec is not installed or gives other pixels, the image is no grey or RGB JPEG, not of the
    sample's size, or damaged, which Pillow has words for.

    Raises ValueError naming shard and key where the header cannot be read.
    """
    decode = decoder()
    if decode is None or sample.extension != "jpg":
        return None
    data, file = sample.read("jpg"), f"{sample.shard}:{sample.key}"
    header = open_image(data, file, PACKED, load=False)
    if header.format != "JPEG" or header.mode not in ("L", "RGB"):
        return None
    try:
        levels = decode(data)
    except (RuntimeError, ValueError):
        return None
    return levels if levels.shape[:2] == (header.height, header.width) == sample.size else None


def unturned(data: bytes) -> bytes:
    """Return a JPEG in which nothing says how to turn it: TorchCodec would do so, unlike Pillow
    and DALI. Raises ValueError where its segments are not in order."""
    if b"\xff\xe1" not in data:
        return data
    changed, last = bytearray(data), 0
    for marker, at in segments(data):
        last = at
        if marker == 0xE1:  # EXIF's, among others; the last of its kind says nothing to libjpeg
            changed[at + 1] = 0xEF
    if changed.find(b"\xff\xe1", after(data, last)) >= 0:
        raise ValueError("a segment after the scan")
    return bytes(changed)


@cache
def decoder() -> Callable[[bytes], np.ndarray] | None:
    """Return TorchCodec's decoder where it is installed and gives Pillow's pixels, which some small
    files show; else None."""
    try:
        from torchcodec import decoders
    except (ImportError, RuntimeError, OSError):  # not installed, or built for other torch
        return None

    def decode(data: bytes) -> np.ndarray:
        levels: Any = decode_jpeg(unturned(data))
        return levels.permute(1, 2, 0).numpy()

    try:
        decode_jpeg = decoders.decode_jpeg  # pyright: ignore[reportPrivateImportUsage]
        return decode if all(map(_agrees(decode), _TRIED)) else None
    except (AttributeError, RuntimeError):  # too old, or what it needs is missing
        return None


def _agrees(decode: Callable[[bytes], np.ndarray]) -> Callable[[dict[str, Any]], bool]:
    """Return a function that tells whether a decoder gives Pillow's pixels of one kind of JPEG."""
    rows, columns = np.mgrid[:43, :61]
    waves = [np.sin(rows / a + columns / b) for a, b in ((5, 9), (3, -4), (11, 2))]
    picture = Image.fromarray((127 + 127 * np.stack(waves, -1)).astype(np.uint8))
    turning = Image.Exif()
    turning[ORIENTATION] = 6

    def agrees(kind: dict[str, Any]) -> bool:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", exif=turning, **kind)
        data = buffer.getvalue()
        return np.array_equal(decode(data), np.asarray(open_image(data, "a JPEG")))

    return agrees
