"""How samples are packed, and the packing of one."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..bands.bands import count_levels
from ..bands.pages import Pages
from ..images import Encoding, pack_image
from ..manifest import counts_row
from ..masks.files import CLASS_EXTENSION, MASK_EXTENSION, count_classes, encode_mask, resize_mask
from ..outside.turning import Exif
from ..rasters.kinds import rgb_array
from ..rasters.packing import Channels, pack_levels
from ..source import Entry, Source
from .parts import Part


@dataclass(frozen=True, kw_only=True)
class PackSettings:
    """How a data set is packed."""

    encoding: Encoding = "keep"
    """Image encoding: keep copies JPEG, PNG and WebP files; jpeg is quality 95, 4:4:4."""
    size: tuple[int, int] | None = None
    """Height and width in pixels that every image and mask is resized to."""
    shard_size: int = 128
    """Size of a shard in MiB, about."""
    shuffle: bool = True
    """Pack training images in a fixed random order (loaders shuffle within a buffer only)."""
    exif: Exif = "auto"
    """Images turned by EXIF: upright turns the pixels, raw leaves them, auto asks the mask."""
    workers: int = 0
    """Processes; 0 is one for each core."""
    channels: Channels = "auto"
    """rgb: images become RGB of 8 bits; all: they keep their 1 to 16 channels of 8 or 16 bits; auto
    is all where the first image can be no RGB."""
    pages: Pages = "refuse"
    """What several pages of a TIFF are: refused, or with channels those of one image."""
    tile: int = 0
    """Cut images and masks into tiles of so many pixels a side; large TIFFs are read by windows. 0
    leaves them whole."""
    tile_overlap: int = 0
    """Pixels that neighbouring tiles share."""
    part: str | None = None
    """Write one of N equal parts alone, as I/N, into DATA/part-I-of-N: for large sets, on N
    machines. `warpseg merge DATA` then joins them."""

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"size must be two positive numbers of pixels; got {self.size}")
        if self.shard_size < 1:
            raise ValueError(f"shard_size must be at least 1 MiB; got {self.shard_size}")
        if self.workers < 0:
            raise ValueError(f"workers must be 0 (all cores) or more; got {self.workers}")
        if self.tile < 0 or not 0 <= self.tile_overlap < max(self.tile, 1):
            raise ValueError(
                "--tile takes 1 pixel or more, --tile-overlap 0 to one less than that; got "
                f"{self.tile} and {self.tile_overlap}"
            )
        if self.pages == "channels" and self.channels == "rgb":
            raise ValueError("--pages channels keeps all channels: leave out --channels rgb")
        if self.part is not None:
            Part.parse(self.part)

    def record(self) -> dict[str, Any]:
        """Return what shapes the bytes, as plain values for the manifest."""
        values = asdict(self)
        del values["workers"], values["part"], values["channels"]
        for name in ("pages", "tile", "tile_overlap"):  # of those who ask for them
            if values[name] == PackSettings.__dataclass_fields__[name].default:
                del values[name]
        return values | {"size": list(self.size) if self.size else None}


@dataclass(frozen=True)
class Packed:
    """One sample ready to be written: members (extension, bytes), (height, width), class counts,
    its row of them for the manifest, what is to be said of its files, and the levels of its
    channels (`count_levels`), none of plain RGB."""

    members: list[tuple[str, bytes]]
    size: tuple[int, int]
    counts: np.ndarray | None
    remarks: tuple[str, ...] = ()
    row: str = ""
    levels: list[tuple[int, ...]] = field(default_factory=list)


def pack_sample(source: Source, entry: Entry, settings: PackSettings) -> Packed:
    """Read, check and encode one sample of a source.

    Raises ValueError or FileNotFoundError naming the file that is at fault.
    """
    image, mask = source.read(entry)
    remarks = source.values.take_remarks()
    file, mask_size = str(source.root / entry.image), None if mask is None else mask.shape[:2]
    extension, data, size, levels = _pack_pixels(source, settings, image, file, mask_size, remarks)
    members, counts, row = [(extension, data)], None, ""
    if mask is not None:
        mask = mask if mask.shape == size else resize_mask(mask, size)
        members.append((MASK_EXTENSION, encode_mask(mask)))
        counts, row = count_classes(mask, len(source.classes)), counts_row(mask)
    if entry.label is not None:
        members.append((CLASS_EXTENSION, str(entry.label).encode()))
        counts = np.bincount([entry.label], minlength=len(source.classes) + 1)
    return Packed(members, size, counts, tuple(remarks), row, levels)


def _pack_pixels(
    source: Source,
    settings: PackSettings,
    image: bytes | np.ndarray,
    file: str,
    mask_size: tuple[int, ...] | None,
    remarks: list[str],
) -> tuple[str, bytes, tuple[int, int], list[tuple[int, ...]]]:
    """Return the image's extension, bytes and size, and the levels of channels that are no RGB."""
    shared: dict[str, Any] = {
        "encoding": settings.encoding,
        "size": settings.size,
        "mask_size": mask_size,
        "remarks": remarks,
    }
    if source.bands is None:
        image = rgb_array(image, file)
        return *pack_image(image, file, exif=settings.exif, **shared), []
    extension, data, size, levels = pack_levels(
        image, file, bands=source.bands, pages=settings.pages, **shared
    )
    return extension, data, size, count_levels(levels)
