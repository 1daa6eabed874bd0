"""Masks as members of a shard: class ids as 8-bit grey PNGs."""

import io

import numpy as np
from PIL import Image

from ... import IGNORE
from ..images import open_image

MASK_EXTENSION = "seg.png"
"""Extension of the mask member of a sample (an image may be a PNG itself)."""
CLASS_EXTENSION = "cls"
"""Extension of the class member of a sample: the class id as text."""


def encode_mask(mask: np.ndarray) -> bytes:
    """Encode class ids, uint8 (H, W), as an 8-bit grey PNG (no decoder changes it)."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def read_mask(data: bytes, file: str = "mask") -> np.ndarray:
    """Decode the mask member of a sample, uint8 (H, W)."""
    mask = np.array(open_image(data, file, ("PNG",)))
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(f"{file} is no 8-bit grey PNG: convert the data set again")
    return mask


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize class ids to (height, width) by the nearest pixel."""
    image = Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(image)


def count_classes(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the pixels of each class, ignored ones last: int64 (C + 1,)."""
    counts = np.array(Image.fromarray(mask).histogram(), np.int64)  # faster than bincount
    return np.append(counts[:num_classes], counts[IGNORE])
