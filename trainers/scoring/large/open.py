"""Which images are labeled by windows, and how they are opened for a network."""

from __future__ import annotations

import numpy as np

from ....shards.bands.bands import PLAIN, kind_of, kind_words
from ....shards.bands.tiff import has_tifffile
from ....shards.images import FURTHER, most_megapixels
from ....shards.rasters.opened import PictureFile, Raster, is_tiff, open_raster
from ..image_files import Source, check_kind, read_picture
from ..settings import PredictSettings
from ..trained import TrainedNetwork

SMALL = 2**18
"""Bytes of a file below which nobody looks how many pixels it has."""


def by_windows(source: Source, settings: PredictSettings) -> bool:
    """Tell whether an image is labeled by windows: all, none, or those that have more pixels than
    are decoded at once and whose format has parts (TIFF, NPY)."""
    if source.address or settings.windows == "never":
        return False
    return settings.windows == "always" or _is_large(source)


def _is_large(source: Source) -> bool:
    path = source.path
    tiff = is_tiff(path)
    if path.stat().st_size < SMALL or not (tiff or path.suffix.lower() == ".npy"):
        return False
    if tiff and not has_tifffile():
        return False
    try:
        raster = open_raster(path, any_type=True)
    except ValueError:  # who reads it says what is wrong with it
        return False
    height, width, _ = raster.shape
    raster.close()
    return height * width > most_megapixels() * 10**6


class _InMemory:
    """An image that is decoded as a whole, as a raster."""

    def __init__(self, levels: np.ndarray, file: str) -> None:
        self._levels, self.file = levels, file
        self.shape: tuple[int, int, int] = (levels.shape[0], levels.shape[1], levels.shape[2])

    orientation = 1
    """It is upright."""

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a window."""
        return self._levels[top : top + height, left : left + width]

    def close(self) -> None:
        """Let go of it."""
        del self._levels


class _AsRgb:
    """A raster of 8 bits whose windows are RGB: grey ones repeated, a fourth channel left out."""

    def __init__(self, raster: Raster) -> None:
        self._raster, self.file = raster, raster.file
        height, width, channels = raster.shape
        self.shape: tuple[int, int, int] = (height, width, 3)
        self._grey = channels < 3

    orientation = 1
    """It is upright."""

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a window in RGB."""
        levels = self._raster.read(top, left, height, width)
        return np.repeat(levels[..., :1], 3, axis=2) if self._grey else levels[..., :3]

    def close(self) -> None:
        """Close the file."""
        self._raster.close()


def open_for(trained: TrainedNetwork, source: Source) -> tuple[Raster, list[str]]:
    """Open an image file as a network wants it: RGB of 8 bits, or all its channels; and say what of
    it is not shown so.

    Raises ValueError where the file is of another kind, and as `open_raster`.
    """
    raster = open_raster(source.path)
    if trained.channels is not None:
        check_kind(kind_of(raster.read(0, 0, 1, 1)), raster.file, trained.channels)
        return raster, []
    if isinstance(raster, PictureFile):
        raster.close()
        levels, told = read_picture(source.path)
        return _InMemory(levels, raster.file), told
    kind = kind_of(raster.read(0, 0, 1, 1))
    if kind[1] != 8 or kind[0] > 4:
        raster.close()
        raise ValueError(
            f"{raster.file} has {kind_words(kind)}, and the network was trained on RGB of 8 bits"
        )
    told = [FURTHER] if kind[0] in (2, 4) else []
    return (raster if kind == PLAIN else _AsRgb(raster)), told
