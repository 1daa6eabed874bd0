"""How samples are packed, and the packing of one."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..images import Encoding, Exif, pack_image
from ..manifest import counts_row
from ..masks.files import CLASS_EXTENSION, MASK_EXTENSION, count_classes, encode_mask, resize_mask
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
        if self.part is not None:
            Part.parse(self.part)

    def record(self) -> dict[str, Any]:
        """Return what shapes the bytes, as plain values for the manifest."""
        values = asdict(self)
        del values["workers"], values["part"]
        return values | {"size": list(self.size) if self.size else None}


@dataclass(frozen=True)
class Packed:
    """One sample ready to be written: members (extension, bytes), (height, width), class counts,
    its row of them for the manifest, and what is to be said of its files."""

    members: list[tuple[str, bytes]]
    size: tuple[int, int]
    counts: np.ndarray | None
    remarks: tuple[str, ...] = ()
    row: str = ""


def pack_sample(source: Source, entry: Entry, settings: PackSettings) -> Packed:
    """Read, check and encode one sample of a source.

    Raises ValueError or FileNotFoundError naming the file that is at fault.
    """
    image, mask = source.read(entry)
    remarks = source.values.take_remarks()
    extension, data, size = pack_image(
        image,
        str(source.root / entry.image),
        encoding=settings.encoding,
        size=settings.size,
        exif=settings.exif,
        mask_size=None if mask is None else (mask.shape[0], mask.shape[1]),
        remarks=remarks,
    )
    members, counts, row = [(extension, data)], None, ""
    if mask is not None:
        mask = mask if mask.shape == size else resize_mask(mask, size)
        members.append((MASK_EXTENSION, encode_mask(mask)))
        counts, row = count_classes(mask, len(source.classes)), counts_row(mask)
    if entry.label is not None:
        members.append((CLASS_EXTENSION, str(entry.label).encode()))
        counts = np.bincount([entry.label], minlength=len(source.classes) + 1)
    return Packed(members, size, counts, tuple(remarks), row)
