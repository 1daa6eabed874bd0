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


def _numbers(self) -> Mapping[int, int]:
    drawn = [i for i, n in enumerate(self.classes) if n.lower() not in BACKGROUND]
    return {label: number for number, label in enumerate(drawn)}


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


WRITERS: dict[str, type[Writer]] = {
    "coco": CocoWriter,
    "labelme": LabelmeWriter,
    "cvat": CvatWriter,
    "label-studio": LabelStudioWriter,
    "ultralytics": UltralyticsWriter,
}


def _value(shape: Shape, size: tuple[int, int]) -> dict[str, Any]:
    if shape.ring is None:
        return {"format": "rle", "rle": encode_brush(shape.patch.inside)}
    points = shape.ring * 100 / np.array(size[::-1])
    return {"points": np.round(points, 6).tolist(), "closed": True}


def score_of(confidence: np.ndarray) -> float:
    return round(float(confidence.mean()) / 255, 4) if confidence.size else 0.0


def bounds(patch: Patch) -> tuple[int, int, int, int]:
    """Return left, top, width and height in pixels of what is inside."""
    rows, columns = np.flatnonzero(patch.inside.any(1)), np.flatnonzero(patch.inside.any(0))
    height, width = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
    return int(columns[0]) + patch.left, int(rows[0]) + patch.top, width, height


def _numbers(ring: Ring) -> list[float]:
    return [round(float(v), 2) for v in ring.ravel()]
