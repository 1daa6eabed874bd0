"""LABELS/tasks.json and config.xml: Label Studio, with predictions and the labels."""

import json
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from ..brush import encode_brush
from ..drawn import BACKGROUND
from .writer import Labeled, Shape, Writer, hexadecimal, score_of


class LabelStudioWriter(Writer):
    """Label Studio's tasks with predictions, and the labelling configuration they are for."""

    def row(self, image: Labeled) -> str:
        """Return the task of one image."""
        kind = "polygonlabels" if self.polygons else "brushlabels"
        result = []
        for number, shape in enumerate(self.shapes(image)):
            height, width = image.mask.shape
            result.append(
                {
                    "id": f"r{number}",
                    "type": kind,
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "score": shape.score,
                    "value": {kind: [self.classes[shape.label]], **_value(shape, (height, width))},
                }
            )
        score = score_of(image.confidence)
        prediction = {"model_version": self.model, "score": score, "result": result}
        data = {"image": f"/data/local-files/?d={image.known_as}"}
        return json.dumps({"data": data, "predictions": [prediction]})

    def close(self) -> None:
        """Write tasks.json and config.xml."""
        rows = ",\n".join(self.rows[name] for name in sorted(self.rows))
        self.write("tasks.json", f"[\n{rows}\n]\n")
        tag = "PolygonLabels" if self.polygons else "BrushLabels"
        labels = "".join(
            f'    <Label value={quoteattr(name)} background="{hexadecimal(self.palette[i])}"/>\n'
            for i, name in enumerate(self.classes)
            if name.lower() not in BACKGROUND
        )
        self.write(
            "config.xml",
            f'<View>\n  <Image name="image" value="$image"/>\n  <{tag} name="label" '
            f'toName="image">\n{labels}  </{tag}>\n</View>\n',
        )


def _value(shape: Shape, size: tuple[int, int]) -> dict[str, Any]:
    if shape.ring is None:
        return {"format": "rle", "rle": encode_brush(shape.patch.inside)}
    points = shape.ring * 100 / np.array(size[::-1])
    return {"points": np.round(points, 6).tolist(), "closed": True}
