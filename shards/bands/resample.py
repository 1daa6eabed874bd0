"""Resampling of images of any channels by Pillow, each channel by itself, as it does RGB's."""

from __future__ import annotations

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]


def resample(image: np.ndarray, size: tuple[int, int], box: Box | None = None) -> np.ndarray:
    """Resample an image (H, W, C), uint8 or uint16, to (height, width), bilinear with antialiasing.

    box: the part that is shown, (left, top, right, bottom) in pixels; the whole where not given.
    Levels of 16 bits are computed in float32 and rounded.
    """
    height, width = size
    made = np.empty((height, width, image.shape[2]), image.dtype)
    for channel in range(image.shape[2]):
        levels = np.ascontiguousarray(image[..., channel])
        wide = levels.dtype != np.uint8
        picture = Image.fromarray(levels.astype(np.float32) if wide else levels)
        shown = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))
        made[..., channel] = np.rint(shown).clip(0, 65535) if wide else shown
    return made
