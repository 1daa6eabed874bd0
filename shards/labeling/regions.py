"""Regions of an image as a tool keeps them, and how they become one mask.

Parts of one region (COCO's several polygons) join; rings of one part cut holes (even-odd, see
`fill`). Regions are painted in layers, then either in the order in which the tool shows them, or
the largest first, so that the smallest lies on top.
"""

import binascii
import io
import math
import zlib
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from PIL import Image

from ...plain import shown
from ..images import open_image
from ..outside.text import Wrong
from .brush import decode_brush
from .fill import Patch, fill
from .runs import decode_coco, decode_runs

_FARTHEST = 1e7
_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class Polygon:
    """Rings, each float64 (n, 2) of (x, y) in pixels: the outline, and holes in it."""

    rings: tuple[np.ndarray, ...]

    def patch(self, size: tuple[int, int]) -> Patch:
        """Return its pixels in an image of (height, width)."""
        return fill(self.rings, size)


@dataclass(frozen=True)
class Runs:
    """Run lengths: `coco` by columns (numbers or text) and `brush` of a whole image, `rows` of a
    window whose first pixel is at (top, left)."""

    kind: str
    counts: Any
    window: tuple[int, int, int, int] | None = None
    """top, left, height, width in pixels; None is the whole image."""

    def patch(self, size: tuple[int, int]) -> Patch:
        """Return its pixels in an image of (height, width). Raises ValueError for damaged runs."""
        top, left, *own = (0, 0, *size) if self.window is None else self.window
        if self.kind != "rows" and tuple(own) != tuple(size):
            raise ValueError(f"its runs are of {own[1]} x {own[0]} pixels, and its image is not")
        if own[0] > size[0] or own[1] > size[1]:
            raise ValueError(f"it is {own[1]} x {own[0]} pixels, larger than its image")
        decode = {"coco": decode_coco, "brush": decode_brush, "rows": decode_runs}[self.kind]
        return Patch(top, left, decode(self.counts, (own[0], own[1]))).within(size)


@dataclass(frozen=True)
class Bitmap:
    """A small PNG in base64 (perhaps packed by zlib) whose first pixel is at (top, left): what is
    not 0, or not transparent, is inside."""

    data: str
    top: int
    left: int

    def patch(self, size: tuple[int, int]) -> Patch:
        """Return its pixels in an image of (height, width). Raises ValueError for damaged data."""
        try:
            data = b64decode(self.data, validate=True)
            if data[:1] == b"\x78":
                data = zlib.decompressobj().decompress(data, _MOST_BYTES)
        except (ValueError, binascii.Error, zlib.error) as error:
            raise ValueError(f"its bitmap cannot be unpacked ({error})") from None
        picture = open_image(data, "its bitmap", ("PNG",))
        if picture.mode in ("RGBA", "LA"):
            picture = picture.getchannel("A")
        pixels = np.asarray(picture)
        inside = np.asarray(pixels.any(2) if pixels.ndim == 3 else pixels > 0)
        return Patch(self.top, self.left, inside).within(size)


Part = Polygon | Runs | Bitmap
UNSEEN = "images with regions that cover no pixel, outside of them or too thin"
JOINED = "images that are listed more than once, with regions each time, all of them drawn"


@dataclass(frozen=True)
class Region:
    """What a tool says of some pixels: a class by its name, and parts. `layer`: of two regions, the
    one of the lower layer never covers the other. `crowd`: a rough outline of many things."""

    label: str
    parts: tuple[Part, ...]
    layer: int = 0
    crowd: bool = False

    def patch(self, size: tuple[int, int]) -> Patch:
        """Return its pixels in an image of (height, width): the union of its parts."""
        return reduce(Patch.joined, (part.patch(size) for part in self.parts))


@dataclass(frozen=True)
class Drawing:
    """The regions of one image, the lowest first; (height, width) where the tool says it."""

    file: str
    regions: tuple[Region, ...] = ()
    size: tuple[int, int] | None = None
    smallest_on_top: bool = False
    ids: dict[str, int] = field(default_factory=dict)
    """The class id of each label; regions of other labels are not painted."""
    rest: int = 0
    """The id of pixels outside all regions."""

    joined: bool = False
    """Whether several files have regions of the image."""

    def paint(self, size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
        """Return the mask of an image of (height, width), uint8, and what is to be said of it.
        Raises ValueError naming the file whose region cannot be read."""
        mask = np.full(size, self.rest, np.uint8)
        drawn = []
        for place, region in enumerate(self.regions):
            if region.label not in self.ids:
                continue
            try:
                patch = region.patch(size)
            except ValueError as error:
                raise ValueError(
                    f"{self.file} has a damaged region of {shown(region.label)} ({error}): draw it "
                    "anew, or remove it"
                ) from None
            drawn.append((region.layer, -patch.area * self.smallest_on_top, place, patch))
        told = [JOINED] if self.joined else []
        if not all(patch.inside.any() for *_, patch in drawn):
            told.append(UNSEEN)
        for _, _, place, patch in sorted(drawn, key=lambda row: row[:3]):
            _paint(mask, patch, self.ids[self.regions[place].label])
        return mask, told


def _paint(mask: np.ndarray, patch: Patch, value: int) -> None:
    top, left = patch.top, patch.left
    height, width = patch.inside.shape
    mask[top : top + height, left : left + width][patch.inside] = value


def ring(value: Any) -> np.ndarray:
    """Read a ring: a list of [x, y]. Raises Wrong for what is none."""
    if not isinstance(value, list) or not all(
        isinstance(point, list | tuple) and len(point) == 2 for point in value
    ):
        raise Wrong(f"is {shown(value)}, not a list of points [x, y]")
    return flat_ring([number for point in value for number in point])


def flat_ring(value: Any) -> np.ndarray:
    """Read a ring: a list of x, y, x, y, ... Raises Wrong for what is none."""
    if not isinstance(value, list) or len(value) % 2:
        raise Wrong(f"is {shown(value)}, not a list of x, y, x, y, ...")
    return np.array([real(number) for number in value], np.float64).reshape(-1, 2)


def real(value: Any) -> float:
    """Read a number of pixels, within ten million. Raises Wrong for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(f"is {shown(value)}, not a number")
    if not math.isfinite(value) or abs(value) > _FARTHEST:
        raise Wrong(f"is {shown(value)}, too far outside of any image")
    return float(value)


def bitmap_of(inside: np.ndarray) -> bytes:
    """Return pixels, bool (H, W), as a PNG of one bit a pixel."""
    buffer = io.BytesIO()
    Image.fromarray(inside).save(buffer, "PNG")
    return buffer.getvalue()


def labels_of(drawings: Sequence[Drawing]) -> list[str]:
    """Return all labels that occur, sorted."""
    return sorted({region.label for drawing in drawings for region in drawing.regions})
