"""LABELS/coco.json: COCO, with images, categories and annotations that have a score."""

import json

from ..drawn import BACKGROUND
from ..outlines import Ring
from ..runs import encode_coco
from .writer import Labeled, Writer, bounds


class CocoWriter(Writer):
    """COCO's JSON; category ids are class ids + 1."""

    def row(self, image: Labeled) -> str:
        """Return the image and its annotations, yet without ids."""
        height, width = image.mask.shape
        annotations = []
        for shape in self.shapes(image):
            annotations.append(
                {
                    "category_id": shape.label + 1,
                    "segmentation": encode_coco(shape.patch.inside)
                    if shape.ring is None
                    else [_numbers(shape.ring)],
                    "area": shape.patch.area,
                    "bbox": bounds(shape.patch),
                    "iscrowd": 0,
                    "score": shape.score,
                }
            )
        of_image = {"file_name": image.known_as, "height": height, "width": width}
        return json.dumps([of_image, annotations])

    def close(self) -> None:
        """Write coco.json."""
        images, annotations = [], []
        for number, name in enumerate(sorted(self.rows), 1):
            of_image, shapes = json.loads(self.rows[name])
            images.append(json.dumps({"id": number, **of_image}))
            for shape in shapes:
                row = {"id": len(annotations) + 1, "image_id": number, **shape}
                annotations.append(json.dumps(row))
        categories = [
            json.dumps({"id": i + 1, "name": name, "color": list(self.palette[i])})
            for i, name in enumerate(self.classes)
            if name.lower() not in BACKGROUND
        ]
        parts = {"images": images, "categories": categories, "annotations": annotations}
        told = ",\n".join(f'"{k}": [\n' + ",\n".join(v) + "\n]" for k, v in parts.items())
        self.write("coco.json", "{" + told + "}\n")


def _numbers(ring: Ring) -> list[float]:
    return [round(float(v), 2) for v in ring.ravel()]
