"""LABELS/NAME.png: masks of another data set's ids."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ... import archive
from .writer import Labeled, Writer


@dataclass
class IdWriter(Writer):
    """Masks whose values are another data set's ids: `ids` has the id of each class."""

    ids: tuple[int, ...] = ()

    def row(self, image: Labeled) -> str:
        """Write the mask of one image, 8-bit grey; pixels of no class are 0."""
        table = np.zeros(256, np.uint8)
        table[: len(self.ids)] = self.ids
        buffer = io.BytesIO()
        Image.fromarray(table[image.mask]).save(buffer, "PNG")
        path = self.folder / f"{image.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.replacing(path) as file:
            file.write(buffer.getvalue())
        return ""
