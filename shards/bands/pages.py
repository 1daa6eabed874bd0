"""Pages of a TIFF as tifffile gives them: which count, and what they are together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ..outside.turning import ORIENTATION
from .bands import MOST, refuse_count, refuse_type

Pages = Literal["refuse", "channels"]
"""What several pages of a file are: refused, or the channels of one image."""


def check_pages(pages: Sequence[Any], file: str, several: Pages, any_type: bool) -> None:
    """Raise ValueError, in words, where pages are no image of rows, columns and channels."""
    if not pages:
        raise ValueError(f"{file} holds no image: replace it")
    if len(pages) > 1 and pages[0].imagewidth <= MOST < len(pages):
        raise ValueError(
            f"{file} has {len(pages)} pages of {pages[0].imagelength} x {pages[0].imagewidth}, one "
            "for each row of an image: write its channels together, with tifffile by "
            "imwrite(..., photometric='minisblack', planarconfig='contig')"
        )
    if len(pages) > 1 and several == "refuse":
        raise ValueError(
            f"{file} has {len(pages)} pages: say --pages channels where each is a "
            "channel of one image, or save the page that counts by itself"
        )
    first = pages[0]
    size = (first.imagelength, first.imagewidth, first.dtype)
    for page in pages:
        if (page.imagelength, page.imagewidth, page.dtype) != size:
            raise ValueError(f"{file} has pages of several sizes or types: save one image")
        if page.dtype is None or any(axis not in "YXS" for axis in axes_of(page)):
            raise ValueError(f"{file} is no image of rows and columns: save it as one")
        if not any_type:
            refuse_type(np.dtype(page.dtype), file)
            if page.photometric in (0, 3):
                kind = "inverted" if page.photometric == 0 else "of indices into a palette"
                raise ValueError(f"{file} is {kind}: save its levels as they are meant")
            if orientation_of(page) != 1:
                raise ValueError(
                    f"{file} is turned by its tag (orientation {orientation_of(page)}): "
                    "save its pixels upright, without the tag"
                )
            if page.bitspersample not in (8, 16):
                raise ValueError(
                    f"{file} has {page.bitspersample} bits a level: save it with 8 or 16"
                )
    if not any_type:
        refuse_count(sum(channels_of(page) for page in pages), file)


def is_aside(page: Any) -> bool:
    """Tell whether a page is an overview (1) or a mask of transparency (4)."""
    return bool(int(page.subfiletype or 0) & 5)


def orientation_of(page: Any) -> int:
    """Return how a page's picture is to be turned, by EXIF's numbers: 1 for not at all."""
    tag = page.tags.get(ORIENTATION)
    return int(tag.value) if tag is not None and tag.value in range(2, 9) else 1


def axes_of(page: Any) -> str:
    """Return the letters of a page's axes: Y and X, S for its samples."""
    return page.axes


def channels_of(page: Any) -> int:
    """Return how many channels a page has."""
    return int(page.samplesperpixel)


def channels_last(levels: np.ndarray, axes: str) -> np.ndarray:
    """Return a page's levels with the channels last."""
    return np.moveaxis(levels, 0, -1) if axes == "SYX" else levels.reshape(*levels.shape[:2], -1)
