"""What is written of an image that is labeled by windows: maps row by row, a small overlay."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

from ....shards.bands.shown import as_picture
from ....shards.bands.writing import RowWriter
from ...drawing import overlay, palette_table
from ..drawn import FORMATS, save, with_legend_of
from ..image_files import Source
from ..maps import mask_suffix, open_map
from ..settings import PredictSettings
from ..trained import TrainedNetwork
from .plan import Placed

LONGEST = 2048
"""Pixels of the longer side of an overlay, at most."""


class Overview:
    """Every `step`-th pixel of an image and of its mask, for the overlay."""

    def __init__(self, trained: TrainedNetwork, size: tuple[int, int]) -> None:
        self._trained = trained
        self.step = max(-(-max(size) // LONGEST), 1)
        self._size = tuple(-(-length // self.step) for length in size)
        self._picture = np.zeros((*self._size, 3), np.uint8)
        self._mask = np.zeros(self._size, np.uint8)

    def add(self, place: Placed, image: np.ndarray, mask: np.ndarray) -> None:
        """Take the levels and the labels of a core."""
        (top, bottom), (left, right) = place.rows[2:], place.columns[2:]
        part = (slice(-top % self.step, None, self.step), slice(-left % self.step, None, self.step))
        rows, columns = (
            slice(-(-first // self.step), -(-last // self.step))
            for first, last in ((top, bottom), (left, right))
        )
        trained = self._trained
        self._picture[rows, columns] = as_picture(image[part], trained.channels)
        self._mask[rows, columns] = mask[part]

    def save(self, out: Path, name: str, settings: PredictSettings) -> None:
        """Draw and write the overlay."""
        trained = self._trained
        drawn = overlay(self._picture, self._mask, trained.palette, settings.opacity)
        picture = Image.fromarray(drawn)
        if settings.legend:
            picture = with_legend_of(drawn, self._mask, trained.classes, trained.palette)
        save(picture, out / "overlays" / f"{name}{FORMATS[settings.overlay]}")


def open_writers(
    closing: ExitStack,
    trained: TrainedNetwork,
    source: Source,
    out: Path,
    settings: PredictSettings,
    size: tuple[int, int],
) -> list[RowWriter]:
    """Open the mask and, where it is asked for, the confidence of an image; they take their place,
    whole, when `closing` ends."""
    suffix = mask_suffix(source.path, settings, large=True)
    colours = palette_table(trained.palette)
    maps: list[tuple[str, np.ndarray | None]] = [("masks", colours)]
    maps += [("confidence", None)] if settings.confidence else []
    return [
        open_map(closing, source.path, out / folder / f"{source.name}{suffix}", size, table)
        for folder, table in maps
    ]
