"""JPEGs by TorchCodec where it is installed: Pillow's pixels for less of a processor's time.

Both decode by libjpeg-turbo, but Pillow then copies each pixel into four bytes of its own and,
where an array is wanted, back.
"""

import io
import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from ...shards import Sample
from ...shards.images import PACKED, open_image
from ...shards.outside.turning import ORIENTATION
from .written import writes

INSTALL = 'pip install "warpseg[jpeg]"'
_TRIED = ({"quality": 90}, {"quality": 75, "progressive": True}, {"quality": 95, "subsampling": 0})
"""Kinds of JPEG whose pixels are compared before TorchCodec is used."""
_MOST_FAULTY = 32
"""Files of which libjpeg has something to say, after which all are Pillow's."""
_log = logging.getLogger(__name__)
_faulty: set[tuple[str, str]] = set()
"""Shard and key of files of which TorchCodec's libjpeg has printed something."""


def read_jpeg(sample: Sample) -> np.ndarray | None:
    """Decode a sample's JPEG to RGB, uint8 (H, W, 3), read-only; None where Pillow is to do it:
    TorchCodec is not installed or gives other pixels, the image is no grey or RGB JPEG, or is
    damaged, which Pillow has words for.

    Where libjpeg prints that a file is spoilt, which Pillow passes over, the file is Pillow's from
    then on, and after some such files all are: one line a decode would fill the log.

    Raises ValueError naming shard and key where the header cannot be read.
    """
    decode = decoder()
    place = (str(sample.shard), sample.key)
    if decode is None or sample.extension != "jpg" or place in _faulty or is_given_up():
        return None
    data, file = sample.read("jpg"), ":".join(place)
    header = open_image(data, file, PACKED, load=False)
    if header.format != "JPEG" or header.mode not in ("L", "RGB"):
        return None
    before = writes()
    try:
        levels = decode(data)
    except RuntimeError:
        return None
    finally:
        if writes() != before:
            _leave_to_pillow(place)
    return levels if levels.shape[:2] == (header.height, header.width) else None


def is_given_up() -> bool:
    """Tell whether so many files were spoilt that all are Pillow's."""
    return len(_faulty) >= _MOST_FAULTY


def _leave_to_pillow(place: tuple[str, str]) -> None:
    if place in _faulty or is_given_up():
        return  # another thread has said so
    _faulty.add(place)
    _log.warning(
        "%s:%s is a JPEG that libjpeg finds fault with, as it has just printed; %s Pillow's from "
        "now on, which gives the same pixels without a word",
        *place,
        "after so many, all are" if is_given_up() else "it is",
    )


def unturned(data: bytes) -> bytes:
    """Return a JPEG in which nothing says how to turn it: TorchCodec would do so, unlike Pillow
    and DALI. Raises RuntimeError where its segments are not in order."""
    if b"\xff\xe1" not in data:
        return data
    changed, at, marker = bytearray(data), 2, 0
    while marker != 0xDA:  # the scan, after which come no segments of applications
        head = changed[at : at + 4]
        if len(head) < 4 or head[0] != 0xFF or not 0xC0 <= head[1] < 0xFF:
            raise RuntimeError("stray bytes between segments")
        marker = head[1]
        if marker == 0xE1:  # EXIF's, among others; the last of its kind says nothing to libjpeg
            changed[at + 1] = 0xEF
        at += 2 + head[2] * 256 + head[3]
    if changed.find(b"\xff\xe1", at) >= 0:
        raise RuntimeError("a segment after the scan")
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
