"""One sample of a shard: where its members lie, and how they are read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from .. import IGNORE, UNLABELED
from ..plain import shown
from .archive import BLOCK, Parts
from .bands.bands import PLAIN, kind_of, kind_words
from .bands.shown import as_picture
from .images import IMAGE_EXTENSIONS, read_levels, read_rgb
from .masks.files import CLASS_EXTENSION, MASK_EXTENSION, read_mask
from .staging import open_shard
from .window import Needed, open_window


@dataclass(frozen=True)
class Sample:
    """One sample: where its members lie, without their contents.

    `parts` maps extensions ("jpg", "seg.png", "cls") to (offset in the tar, size) in bytes; `name`
    is what the source called the image; `size` is (height, width) of the image in pixels.
    """

    key: str
    shard: Path
    parts: Mapping[str, tuple[int, int]]
    name: str
    size: tuple[int, int]
    bands: tuple[int, int] = PLAIN
    """Channels, and bits of each."""
    optional: ClassVar[bool] = False
    """Whether training goes on without it where it cannot be decoded, whatever it was told."""

    @property
    def extension(self) -> str:
        """Extension of the image member."""
        return next(ext for ext in IMAGE_EXTENSIONS if ext in self.parts)

    def read(self, extension: str) -> bytes:
        """Return the bytes of one member; KeyError where the sample lists none such.

        Raises ValueError where the tar holds another member there, or ends before: an index that
        is off by one sample would give each image the mask of another.
        """
        offset, size = self.parts[extension]
        with open_shard(self.shard) as file:
            block = os.pread(file.fileno(), BLOCK + size, offset - BLOCK)
        if (
            len(block) != BLOCK + size
            or block[:100].rstrip(b"\0") != f"{self.key}.{extension}".encode()
        ):
            raise ValueError(
                f"{self.shard} does not hold {self.key}.{extension} at byte {offset}, where the "
                "index says: make the split or the data set again"
            )
        return block[BLOCK:]

    def read_image(self) -> np.ndarray:
        """Decode the image, uint8 RGB (H, W, 3), or with all its channels, (H, W, C) uint8 or
        uint16; ValueError where it is not of `size`."""
        if self.bands != PLAIN:
            image = self._read_levels()
        else:
            image = read_rgb(self.read(self.extension), self.extension, f"{self.shard}:{self.key}")
        self._check_size(image.shape[0], image.shape[1])
        return image

    def read_picture(self, needed: Needed) -> Image.Image:
        """Decode the image to Pillow's own, in RGB: without the copy that an array costs. Pixels
        outside of the needed ones may be anything. Raises what `read_image` does."""
        if self.extension == "npy":
            return Image.fromarray(self.read_image())
        data, file = self.read(self.extension), f"{self.shard}:{self.key}"
        picture = open_window(data, file, needed, self.size)
        self._check_size(picture.height, picture.width)
        return picture

    def read_shown(self) -> np.ndarray:
        """Decode the image to what a picture of it shows, uint8 RGB (H, W, 3): of other images than
        RGB of 8 bits three channels, stretched by their own levels."""
        return as_picture(self.read_image())

    def _check_size(self, height: int, width: int) -> None:
        # Else a crop would fail, and the image be left out, by where the crop lies.
        if (height, width) != self.size:
            raise ValueError(
                f"{self.shard}:{self.key} has an image of {width} x {height}, not of "
                f"{self.size[1]} x {self.size[0]} as was noted"
            )

    def _read_levels(self) -> np.ndarray:
        where = f"{self.shard}:{self.key}"
        levels = read_levels(self.read(self.extension), where)
        if kind_of(levels) != self.bands:
            raise ValueError(
                f"{where} has {kind_words(kind_of(levels))}, not {kind_words(self.bands)}: convert "
                "the data set again"
            )
        return levels

    def read_mask(self) -> np.ndarray:
        """Decode the mask, uint8 class ids (H, W), IGNORE where nobody has labeled yet as well; a
        class id alone is a mask of one pixel."""
        mask = self.read_ids()
        mask[mask == UNLABELED] = IGNORE
        return mask

    def read_ids(self) -> np.ndarray:
        """Decode the mask as it is stored, with UNLABELED apart from IGNORE; as `read_mask`."""
        if CLASS_EXTENSION in self.parts:
            return np.array([[self.read_class()]], np.uint8)
        return read_mask(self.read(MASK_EXTENSION), f"{self.shard}:{self.key}")

    def read_class(self) -> int:
        """Read the class id of a classification sample; ValueError where it is none."""
        word = self.read(CLASS_EXTENSION)
        if not word.isdigit() or not 0 <= int(word[:4]) <= IGNORE:
            raise ValueError(
                f"{self.shard}:{self.key} has the class {shown(word)}: convert the data set again"
            )
        return int(word[:4])


def parts_of_image(parts: Mapping[str, tuple[int, int]]) -> Parts:
    """Return the image member alone."""
    return {ext: where for ext, where in parts.items() if ext in IMAGE_EXTENSIONS}
