"""Images of which a window is needed: no more of them is decoded than lies above its end.

They keep their size: Pillow resamples rows or columns first as the whole image's size says, and its
weights round by where a box lies.
"""

import io
from typing import Any

import numpy as np
from PIL import Image

from . import jpeg, png
from .images import PACKED, open_image, to_rgb

Needed = tuple[int, int, int, int]
"""Pixels [top, left, bottom, right)."""


def open_window(data: bytes, file: str, needed: Needed, size: tuple[int, int]) -> Image.Image:
    """Decode an image member, no array, to Pillow's image in RGB, of which the needed pixels count.

    size: height and width that the image should have. Raises ValueError naming `file`.
    """

    def stop_below(image: Any) -> None:
        rows = needed[2]
        if image.format == "JPEG":
            rows += jpeg.MARGIN
            upper = jpeg.upper_rows(data, rows, size)
            if upper is None:
                return
            # libjpeg may not stop before the height that its file says.
            image.fp = io.BytesIO(upper)
        elif image.format != "PNG" or rows >= size[0] or not png.goes_from_above(data, size):
            return
        image.tile = [tile._replace(extents=(0, 0, image.width, rows)) for tile in image.tile]

    return to_rgb(open_image(data, file, PACKED, prepare=stop_below), file)


def window_of(levels: np.ndarray, needed: Needed) -> Image.Image:
    """Return Pillow's image of levels (H, W, 3) uint8, of which the needed pixels count."""
    top, left, bottom, right = needed
    picture = Image.new("RGB", (levels.shape[1], levels.shape[0]), None)
    picture.paste(Image.fromarray(levels[top:bottom, left:right]), (left, top))
    return picture
