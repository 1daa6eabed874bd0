"""Whether images of a source are RGB of 8 bits, or have channels and bits of another kind."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..bands.arrays import read_npy
from ..bands.bands import PLAIN, kind_of, kind_words
from ..bands.pages import Pages
from ..bands.tiff import has_tifffile
from ..images import form_of, read_levels
from ..source import Source
from .opened import open_raster
from .packing import Channels

Kind = tuple[int, int]
_SAMPLES, _NO_PICTURE = 277, 5
"""The tag of a TIFF's channels, and how many no picture has."""
RASTERS = (".tif", ".tiff", ".npy")
"""Suffixes of files that may hold what is no RGB."""


def bands_of(source: Source, channels: Channels, pages: Pages) -> Kind | None:
    """Return channels and bits of a source's images, those of its first; None for RGB of 8 bits.

    Raises ValueError where the first image cannot be read so, RuntimeError where tifffile is
    missing.
    """
    if channels == "rgb":
        return None
    wanted = channels == "all" or pages == "channels"
    entry = next(iter(source.subsets.values()))[0]
    path = source.root / entry.image
    if type(source).read is Source.read and path.is_file():
        with open(path, "rb") as file:
            form = form_of(file.read(16))
        if not wanted and not (form == "npy" or (form == "tif" and beyond_rgb(path))):
            return None
        raster = open_raster(path, pages)
        try:
            kind = kind_of(raster.read(0, 0, 1, 1))
        finally:
            raster.close()
        return None if kind == PLAIN else kind
    if not wanted and path.suffix.lower() not in RASTERS:
        return None
    image, _ = source.read(entry)
    return _kind_of_pixels(image, str(path), wanted, pages)


def _kind_of_pixels(
    image: bytes | np.ndarray, file: str, wanted: bool, pages: Pages
) -> Kind | None:
    """Return the kind of an image that is no file of its own."""
    if isinstance(image, bytes):
        form = form_of(image)
        if not wanted and not (form == "npy" or (form == "tif" and beyond_rgb(image))):
            return None
        image = read_levels(image, file, pages)
    kind = kind_of(image)
    return None if kind == PLAIN else kind


def rgb_array(image: bytes | np.ndarray, file: str) -> bytes | np.ndarray:
    """Return an image that is to be RGB of 8 bits, an array out of an NPY file, others as they are.

    Raises ValueError for an array of other channels or bits, and for a file that has some.
    """
    if isinstance(image, np.ndarray):
        return image
    form = form_of(image)
    if form == "npy":
        levels = read_npy(image, file)
        if kind_of(levels) != PLAIN:
            raise ValueError(
                f"{file} has {kind_words(kind_of(levels))}, and others are RGB of 8 bits: a data "
                "set holds images of one kind (--channels all keeps all that they have)"
            )
        return levels
    if form == "tif" and has_tifffile() and beyond_pillow(image):
        levels = read_levels(image, file, "channels")
        if kind_of(levels) == PLAIN:
            return levels
        raise ValueError(
            f"{file} has {kind_words(kind_of(levels))}, and others are RGB of 8 bits: a data set "
            "holds images of one kind (--channels all keeps all that they have)"
        )
    return image


def beyond_rgb(source: Path | bytes) -> bool:
    """Tell whether a TIFF can be no RGB picture: Pillow does not know it, or drops two channels of
    it and more."""
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(opened, formats=("TIFF",)) as image:
            tags: Any = getattr(image, "tag_v2", {})
            return int(tags.get(_SAMPLES, 1)) >= _NO_PICTURE and image.mode in ("RGB", "RGBA")
    except Exception:
        return beyond_pillow(source)


def beyond_pillow(source: Path | bytes) -> bool:
    """Tell whether Pillow has no name for what a TIFF holds, as of six channels."""
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(opened, formats=("TIFF",)):
            return False
    except Image.DecompressionBombError:
        return False
    except Exception:  # over files that it does not know Pillow raises nearly every kind
        return True
