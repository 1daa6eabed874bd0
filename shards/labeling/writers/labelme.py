"""LABELS/NAME.json: LabelMe, a file for each image."""

import json
import os
from base64 import b64encode
from typing import Any

from ..regions import bitmap_of
from .writer import Labeled, Shape, Writer, bounds


class LabelmeWriter(Writer):
    """LabelMe's JSON, a file for each image: polygons, or masks in their bounds."""

    def row(self, image: Labeled) -> str:
        """Write the file of one image."""
        height, width = image.mask.shape
        file = self.folder / f"{image.name}.json"
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": [self._shape(shape) for shape in self.shapes(image)],
            "imagePath": os.path.relpath(image.path.resolve(), file.parent.resolve()),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        self.write(f"{image.name}.json", json.dumps(content, indent=1) + "\n")
        return ""

    def _shape(self, shape: Shape) -> dict[str, Any]:
        common = {
            "label": self.classes[shape.label],
            "group_id": None,
            "description": f"{shape.score:.3f}",
            "flags": {},
        }
        if shape.ring is not None:
            return common | {"shape_type": "polygon", "points": shape.ring.tolist(), "mask": None}
        left, top, width, height = bounds(shape.patch)
        inside = shape.patch.inside[top : top + height, left : left + width]
        corners = [[left, top], [left + width - 1, top + height - 1]]
        data = b64encode(bitmap_of(inside)).decode()
        return common | {"shape_type": "mask", "points": corners, "mask": data}
