"""Images and masks cut into tiles while they are packed; of large ones only windows are read.

Tiles are `tile` pixels a side and share `overlap` with their neighbours; the last of a row or
column is shifted back to end where the image does. An image that is smaller is one tile.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..bands.arrays import NpyFile
from ..bands.pages import Pages
from ..bands.tiff import TiffImage
from ..images import FURTHER, eight_bits, losses, most_megapixels, open_image, read_levels, to_rgb
from ..masks.values import MaskValues
from ..outside.files import read_file
from ..outside.turning import Exif, lies, orientation_of, sizes_of, turned, turning_of
from ..source import Entry, Source
from .kinds import beyond_pillow
from .opened import PictureFile, Raster, open_raster

Picture = tuple[np.ndarray, tuple[str, ...]]
"""RGB of 8 bits, and what it does not show of its file."""
OPEN = 4
"""Files that a process keeps open, or decoded."""


@dataclass(frozen=True, kw_only=True)
class Tile(Entry):
    """A window of an image of a source: `name` is the image's, then @ROW-COLUMN, in pixels."""

    window: tuple[int, int, int, int]
    """Top, left, height, width."""
    of: Entry
    """The image."""


@dataclass(kw_only=True)
class TiledSource(Source):
    """A source whose entries are tiles of the images of another one, `whole`."""

    whole: Source
    pages: Pages = "refuse"
    exif: Exif = "auto"
    settings: dict[str, Any] = field(default_factory=dict)

    def read(self, entry: Entry) -> tuple[bytes | np.ndarray, np.ndarray | None]:
        """Return the levels of a tile, RGB or all channels as `bands` says, and its class ids."""
        assert isinstance(entry, Tile)
        if not _has_files(self.whole):
            return self._cut(entry)
        path, told = self.root / entry.image, []
        if self.bands is None:
            image = _rgb_window(path, self.pages, entry.window, self._picture_of(entry), told)
        else:
            image = _opened(path, self.pages, False).read(*entry.window)
        self._tell(entry, told)
        if entry.mask is None:
            return image, None
        return image, mask_window(self.values, self.root / entry.mask, entry.window)

    def files(self, entry: Entry) -> list[Path]:
        """Return the files that a tile is cut out of."""
        assert isinstance(entry, Tile)
        return self.whole.files(entry.of)

    def _picture_of(self, entry: Tile) -> Callable[[], Picture]:
        """Return what decodes a tile's image as a whole."""
        path, mask_size = self.root / entry.image, None
        if entry.mask is not None:
            mask_size = _opened(self.root / entry.mask, "refuse", True).shape[:2]
        return lambda: _picture(path, _time_of(path), self.exif, mask_size)

    def _tell(self, entry: Tile, told: Iterable[str]) -> None:
        """Say once of each image, with its first tile, what its RGB picture does not show."""
        if entry.window[:2] == (0, 0):
            self.values.tell(told)

    def _cut(self, entry: Tile) -> tuple[np.ndarray, np.ndarray | None]:
        """Cut a tile out of an image that its source reads as a whole."""
        image, mask = self.whole.read(entry.of)
        name = str(self.root / entry.image)
        if isinstance(image, bytes):
            if self.bands is None:
                size = None if mask is None else (mask.shape[0], mask.shape[1])
                image, told = _rgb(image, name, self.exif, size)
                self._tell(entry, told)
            else:
                image = read_levels(image, name)
        if mask is not None and mask.shape != image.shape[:2]:
            raise _of_two_sizes(name, image.shape[:2], mask.shape)
        top, left, height, width = entry.window
        part = (slice(top, top + height), slice(left, left + width))
        return np.ascontiguousarray(image[part]), None if mask is None else mask[part].copy()


def tiled(
    source: Source, tile: int, overlap: int, pages: Pages, exif: Exif = "auto"
) -> TiledSource:
    """Return a source of the tiles of another one's images.

    exif: how images that are turned by EXIF lie; auto is as their masks do.

    Raises ValueError for images that are classified as wholes, for a mask of another size than its
    image, and for a file that cannot be read.
    """
    if source.task != "segmentation":
        raise ValueError("--tile cuts images with masks: leave it out for images of one class each")
    subsets = {
        name: [
            part for entry in entries for part in _tiles(source, entry, tile, overlap, pages, exif)
        ]
        for name, entries in source.subsets.items()
    }
    shared = {f.name: getattr(source, f.name) for f in dataclasses.fields(Source)}
    by_image: dict[str, list[str]] = {}
    for part in (part for parts in subsets.values() for part in parts):
        by_image.setdefault(part.name.rpartition("@")[0], []).append(part.name)
    groups = {
        group: tuple(part for image in images for part in by_image.get(image, ()))
        for group, images in source.groups.items()
    }
    return TiledSource(
        **shared | {"subsets": subsets, "groups": groups}, whole=source, pages=pages, exif=exif
    )


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin along an axis of `length` pixels."""
    if length <= tile:
        return [0]
    step = tile - overlap
    count = -(-(length - tile) // step) + 1
    return [min(number * step, length - tile) for number in range(count)]


def _tiles(
    source: Source, entry: Entry, tile: int, overlap: int, pages: Pages, exif: Exif
) -> list[Entry]:
    height, width = _size(source, entry, pages, exif)
    found: list[Entry] = []
    for top in starts(height, tile, overlap):
        for left in starts(width, tile, overlap):
            window = (top, left, min(tile, height), min(tile, width))
            name = f"{entry.name}@{top}-{left}"
            found.append(
                Tile(name=name, image=entry.image, mask=entry.mask, window=window, of=entry)
            )
    return found


def _size(source: Source, entry: Entry, pages: Pages, exif: Exif) -> tuple[int, int]:
    """Return height and width of an image, by the head of its file; its mask has the same."""
    path, rgb, mask_size = source.root / entry.image, source.bands is None, None
    if _has_files(source):
        if entry.mask is not None:
            mask_size, _ = _shape_of(source.root / entry.mask, pages, True)
        size, orientation = _shape_of(path, pages, rgb)
    else:
        image, mask = source.read(entry)
        mask_size = None if mask is None else (mask.shape[0], mask.shape[1])
        size, orientation = _shape_in(image, str(path), rgb)
    if orientation != 1:
        shown = (size[1], size[0]) if orientation >= 5 else size
        if lies(orientation, size, shown, str(path), exif, mask_size) == "upright":
            size = shown
    if mask_size not in (None, size):
        raise _of_two_sizes(path, size, mask_size)
    return size


def _shape_of(path: Path, pages: Pages, any_type: bool) -> tuple[tuple[int, int], int]:
    """Return height and width of an image as it is stored, and its orientation."""
    raster = open_raster(path, pages, any_type=any_type)
    try:
        return (raster.shape[0], raster.shape[1]), raster.orientation
    finally:
        raster.close()


def _shape_in(image: bytes | np.ndarray, file: str, rgb: bool) -> tuple[tuple[int, int], int]:
    """Return height and width of an image as it is stored, and, of one to be RGB, its
    orientation."""
    if isinstance(image, bytes) and rgb:
        picture = open_image(image, file, load=False)
        orientation = orientation_of(picture, file)
        raw, _ = sizes_of(picture, orientation, upright=picture.format == "TIFF")
        return raw, orientation
    levels = read_levels(image, file) if isinstance(image, bytes) else image
    return (levels.shape[0], levels.shape[1]), 1


def _of_two_sizes(
    file: Path | str, size: tuple[int, ...], mask_size: tuple[int, ...]
) -> ValueError:
    return ValueError(
        f"{file} is {size[1]} x {size[0]} but its mask {mask_size[1]} x {mask_size[0]} (width x "
        "height): give both one size"
    )


def _has_files(source: Source) -> bool:
    """Tell whether the images and masks of a source are files of their own."""
    return type(source).read is Source.read


def _opened(path: Path, pages: Pages, any_type: bool) -> Raster:
    """Return an open file, the same one as long as it does not change."""
    return _opened_at(path, _time_of(path), pages, any_type)


@lru_cache(maxsize=OPEN)
def _opened_at(path: Path, time: tuple[int, ...], pages: Pages, any_type: bool) -> Raster:
    return open_raster(path, pages, any_type=any_type)


def _time_of(path: Path) -> tuple[int, ...]:
    state = path.stat()
    return state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino


@lru_cache(maxsize=1)
def _picture(
    path: Path, time: tuple[int, ...], exif: Exif, mask_size: tuple[int, int] | None
) -> Picture:
    """Return an image in RGB, decoded as a whole, and what it does not show of the file."""
    return _rgb(read_file(path), str(path), exif, mask_size)


def _rgb(data: bytes, file: str, exif: Exif, mask_size: tuple[int, int] | None) -> Picture:
    image = open_image(data, file)
    told = losses(image, data)
    image, was_turned = turned(image, data, file, exif, mask_size)
    told += [turning_of(exif, mask_size)] if was_turned else []
    return np.array(to_rgb(eight_bits(image, file, told), file)), tuple(told)


def _rgb_window(
    path: Path,
    pages: Pages,
    window: tuple[int, int, int, int],
    whole: Callable[[], Picture],
    told: list[str],
) -> np.ndarray:
    """Return a window of an image in RGB of 8 bits. whole: decodes it as a whole, for Pillow makes
    RGB of more kinds than windows are read of. `told` receives what it does not show of the file.
    """
    raster = _opened(path, pages, True)
    if not isinstance(raster, NpyFile) and not _is_large(raster):
        picture, remarks = whole()
        told += remarks
        top, left, height, width = window
        return picture[top : top + height, left : left + width].copy()
    levels = raster.read(*window)
    if levels.shape[2] > 3:
        told.append(FURTHER)
    return np.repeat(levels, 3, axis=2) if levels.shape[2] == 1 else levels[..., :3]


def _is_large(raster: Raster) -> bool:
    """Tell whether windows of a TIFF, as RGB of 8 bits, are read without the rest of it: where
    Pillow does not decode it.

    Raises ValueError for one that has too many pixels to be decoded otherwise, and is of another
    kind.
    """
    height, width, channels = raster.shape
    if not isinstance(raster, TiffImage):
        return False
    if height * width <= most_megapixels() * 10**6 and not beyond_pillow(Path(raster.file)):
        return False
    odd = raster.palette is not None or raster.inverted or raster.orientation != 1
    if raster.dtype != np.uint8 or channels not in (1, 3, 4) or odd:
        raise ValueError(
            f"{raster.file} has {channels} channels of {raster.dtype}"
            f"{', a palette, inverted levels or a turned picture' * odd}, of which no RGB is made "
            "by windows: say --channels all, or save it as upright RGB of 8 bits"
        )
    return True


def mask_window(values: MaskValues, path: Path, window: tuple[int, int, int, int]) -> np.ndarray:
    """Return the class ids of a window of a mask file, uint8 (height, width)."""
    raster = _opened(path, "refuse", True)
    top, left, height, width = window
    if isinstance(raster, PictureFile):
        picture = _mask_picture(path, _time_of(path)).crop((left, top, left + width, top + height))
        return values.read(_png(picture), str(path))
    levels = raster.read(*window)
    colours = raster.palette if isinstance(raster, TiffImage) else None
    if levels.dtype == np.uint8 and levels.shape[2] in (1, 3):
        picture = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
        if colours is not None:
            picture.putpalette(colours.tobytes())
        return values.read(_png(picture), str(path))
    return values.of_values(levels, str(path))


@lru_cache(maxsize=1)
def _mask_picture(path: Path, time: tuple[int, ...]) -> Image.Image:
    return open_image(read_file(path), str(path))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
