"""Images as pictures: those that are not RGB of 8 bits are stretched, so that there is something to
see."""

from __future__ import annotations

import numpy as np

from ...pipelines.settings import NormalizationSettings
from ...shards.bands.bands import Bands

REACH = 2.0
"""Standard deviations from a channel's mean that become black and white."""


def as_picture(
    image: np.ndarray, look: NormalizationSettings, channels: Bands | None
) -> np.ndarray:
    """Return an image (H, W, C) as RGB, uint8 (H, W, 3): its first three channels, or the first
    alone in grey, each from two standard deviations below its mean to two above; plain RGB
    (`channels` None) as it is."""
    if channels is None:
        return image
    shown = 3 if image.shape[2] >= 3 else 1
    mean, std = (np.array(values[:shown], np.float32) for values in (look.mean, look.std))
    scaled = (image[..., :shown] / np.float32(channels.highest) - mean) / std
    levels = ((scaled / (2 * REACH) + 0.5) * 255).round().clip(0, 255).astype(np.uint8)
    return levels if shown == 3 else np.repeat(levels, 3, axis=2)
