"""What the crops of a recipe make of a data set: how much of an image they show, in which shape,
and which classes they lose.

Windows are drawn as the pipeline draws them, and masks cut by the nearest pixel, as it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....pipelines.settings import GeometrySettings
from ....pipelines.views.geometry import Window, draw_window
from ....shards import Sample
from ....shards.masks.files import count_classes

CROPS = 8
"""Crops that are drawn of each image."""


@dataclass(frozen=True)
class CropReport:
    """Means over crops; per class float64 (C,), NaN for a class that no image shows."""

    images: int
    crops: int
    seen: float
    """share of its image that a crop shows"""
    padding: float
    """share of a crop's pixels that lie outside its image"""
    factor: float
    """how much images are enlarged (above 1) or shrunk, along their height"""
    squash: float
    """how much more images are stretched along one side than along the other, 1 or more"""
    pixels: np.ndarray
    """share of the labeled pixels of whole images"""
    crop_pixels: np.ndarray
    """share of the labeled pixels of crops"""
    kept: np.ndarray
    """of the crops of images that show the class, those that show it"""
    size: np.ndarray
    """median pixels of the class in crops that show it"""


def look_at_crops(
    samples: Sequence[Sample], num_classes: int, geometry: GeometrySettings, *, seed: int = 0
) -> CropReport:
    """Draw crops of some images with masks and count what they show. Raises ValueError for none."""
    if not samples:
        raise ValueError("there are no images with masks whose crops could be looked at")
    draw = np.random.default_rng(seed)
    whole, cut = np.zeros(num_classes), np.zeros(num_classes)
    shown, there = np.zeros((2, num_classes))
    sizes: list[list[int]] = [[] for _ in range(num_classes)]
    shapes = []
    for sample in samples:
        mask = sample.read_mask()
        counts = count_classes(mask, num_classes)[:-1]
        whole += counts
        for _ in range(CROPS):
            window = draw_window(geometry, sample.size, draw.random(4))
            shapes.append(_shape(window))
            rows, columns = window.nearest()
            in_crop = count_classes(mask[rows][:, columns], num_classes)[:-1]
            cut += in_crop
            there += counts > 0
            shown += in_crop > 0
            for number in np.flatnonzero(in_crop):
                sizes[number].append(int(in_crop[number]))
    seen, padding, factor, squash = np.mean(shapes, axis=0)
    with np.errstate(invalid="ignore"):
        kept = shown / there
    return CropReport(
        images=len(samples),
        crops=len(shapes),
        seen=float(seen),
        padding=float(padding),
        factor=float(factor),
        squash=float(squash),
        pixels=whole / max(whole.sum(), 1),
        crop_pixels=cut / max(cut.sum(), 1),
        kept=kept,
        size=np.array([np.median(values) if values else np.nan for values in sizes]),
    )


def _shape(window: Window) -> tuple[float, float, float, float]:
    """Return seen share, padding, factor and squash of one window."""
    top, left, bottom, right = window.region
    seen = (bottom - top) * (right - left) / (window.source[0] * window.source[1])
    height, width = window.shown_size
    padding = 1 - height * width / (window.crop[0] * window.crop[1])
    down, across = (s / t for s, t in zip(window.scaled, window.source, strict=True))
    return seen, padding, down, max(down / across, across / down)
