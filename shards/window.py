"""Images of which a window is needed: no more of them is decoded than lies above its end."""

import numpy as np
from PIL import Image

from . import jpeg, png
from .images import open_packed

Needed = tuple[int, int, int, int]
"""Pixels [top, left, bottom, right)."""
_UPPER_ROWS = {"jpg": jpeg.upper_rows, "png": png.upper_rows}


def open_window(
    data: bytes, extension: str, file: str, needed: Needed, size: tuple[int, int]
) -> Image.Image:
    """Decode an image member, no array, to Pillow's image in RGB, of which the needed pixels count.

    size: height and width that the image should have. Raises ValueError naming `file`.
    """
    upper = data
    if extension in _UPPER_ROWS:
        upper = _UPPER_ROWS[extension](data, needed[2], size)
    picture = open_packed(upper, file)
    if upper is data:
        return picture
    top, left, bottom, right = needed
    return _placed(picture.crop((left, top, right, bottom)), needed, size)


def window_of(levels: np.ndarray, needed: Needed) -> Image.Image:
    """Return Pillow's image of levels (H, W, 3) uint8, of which the needed pixels count."""
    top, left, bottom, right = needed
    part = Image.fromarray(levels[top:bottom, left:right])
    return _placed(part, needed, (levels.shape[0], levels.shape[1]))


def _placed(part: Image.Image, needed: Needed, size: tuple[int, int]) -> Image.Image:
    """Return an image of a size that holds a part of it. Pillow resamples rows or columns first as
    the whole image's size says, and its weights round by where a box lies; what lies beside the
    part is never touched."""
    picture = Image.new("RGB", (size[1], size[0]), None)
    picture.paste(part, (needed[1], needed[0]))
    return picture
