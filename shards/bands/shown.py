"""Images as pictures: those that are not RGB of 8 bits are stretched, so that there is something to
see."""

from __future__ import annotations

import numpy as np

from .bands import PLAIN, Bands, kind_of

REACH = 2.0
"""Standard deviations from a channel's mean that become black and white."""


def as_picture(image: np.ndarray, channels: Bands | None = None) -> np.ndarray:
    """Return an image (H, W, C) as RGB, uint8 (H, W, 3): plain RGB as it is, of others the first
    three channels, or the first alone in grey, each from two standard deviations below its mean to
    two above: those that `channels` knows, or else the image's own."""
    if kind_of(image) == PLAIN:
        return image
    shown = 3 if image.shape[2] >= 3 else 1
    levels = image[..., :shown].astype(np.float32)
    known = channels is not None and bool(channels.mean)
    mean = channels.mean[:shown] if channels and known else levels.mean((0, 1))
    std = channels.std[:shown] if channels and known else levels.std((0, 1))
    scaled = (levels - np.asarray(mean, np.float32)) / np.maximum(np.asarray(std, np.float32), 1)
    made = ((scaled / (2 * REACH) + 0.5) * 255).round().clip(0, 255).astype(np.uint8)
    return made if shown == 3 else np.repeat(made, 3, axis=2)
