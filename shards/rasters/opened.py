"""Image files on the disk, of which windows are read: TIFF and NPY without the rest of them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from ..bands.arrays import NpyFile
from ..bands.pages import Pages
from ..bands.tiff import TiffImage
from ..images import form_of, open_image, read_levels
from ..outside.files import read_file
from ..outside.turning import orientation_of

_OF_PNG = (b"eXIf", b"Raw profile type")
"""What a PNG holds that has EXIF data."""


class Raster(Protocol):
    """An open image: `shape` is (H, W, C) as it is stored, `file` what errors call it;
    `orientation` says how to turn it, 1 for not at all."""

    file: str
    shape: tuple[int, int, int]

    @property
    def orientation(self) -> int:
        """How the picture is to be turned."""
        ...

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a window, (height, width, C) uint8 or uint16."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class PictureFile:
    """A file that Pillow decodes as a whole: PNG, JPEG, WebP and others."""

    def __init__(self, path: Path) -> None:
        self.file, self._data = str(path), read_file(path)
        image = open_image(self._data, self.file, load=False)
        self.shape = (image.height, image.width, len(image.getbands()))

    @property
    def orientation(self) -> int:
        """How the picture is to be turned, 1 for not at all."""
        if self._data[:4] == b"\x89PNG" and not any(word in self._data for word in _OF_PNG):
            return 1  # without a look at all pixels, which EXIF may lie behind
        return orientation_of(open_image(self._data, self.file, load=False), self.file)

    @cached_property
    def _levels(self) -> np.ndarray:
        return read_levels(self._data, self.file)

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a window, (height, width, C)."""
        return self._levels[top : top + height, left : left + width]

    def close(self) -> None:
        """Let go of the pixels."""
        self.__dict__.pop("_levels", None)


def open_raster(path: Path, pages: Pages = "refuse", *, any_type: bool = False) -> Raster:
    """Open an image file for reading by windows.

    any_type: take values of other types, too, for masks. Raises ValueError and FileNotFoundError
    naming what cannot be read, RuntimeError where tifffile is missing.
    """
    with open(path, "rb") as file:
        form = form_of(file.read(16))
    if form == "tif":
        return TiffImage(path, pages=pages, any_type=any_type)
    return NpyFile(path) if form == "npy" else PictureFile(path)


def is_tiff(path: Path) -> bool:
    """Tell whether a file begins as a TIFF does."""
    try:
        with open(path, "rb") as file:
            return form_of(file.read(16)) == "tif"
    except OSError:
        return False
