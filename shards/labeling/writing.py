"""Masks written as labelling tools read them, to be corrected there.

    LABELS/coco.json                  COCO: images, categories, annotations with score
    LABELS/NAME.json                  LabelMe, a file for each image
    LABELS/annotations.xml            CVAT for images 1.1
    LABELS/tasks.json, config.xml     Label Studio: predictions with score, and the labels
    LABELS/data.yaml, labels/NAME.txt Ultralytics
    LABELS/NAME.png                   masks of another data set's ids

Classes called background are not drawn: what nobody drew is background. Images are given in any
order, from threads; files list them by name.
"""

import io
import json
import os
import threading
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image

from .. import archive
from .brush import encode_brush
from .drawn import BACKGROUND
from .fill import Patch, fill, patch_of
from .outlines import Ring, joined, simplify, trace
from .regions import bitmap_of
from .runs import encode_coco, encode_runs

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Labeled:
    """One image that was labeled: its name without suffix, its file, its name as the tool knows it,
    class ids and confidence in 255ths, uint8 (H, W)."""

    name: str
    path: Path
    known_as: str
    mask: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class Shape:
    """Pixels of one class: all of an image's, or one region of them with its outline as a ring."""

    label: int
    patch: Patch
    score: float
    ring: Ring | None = None


@dataclass
class Writer(ABC):
    """Writes labeled images in the form of one tool.

    `polygons`: outlines simplified to `tolerance` pixels (holes hang on the outline by cuts of no
    width), one shape for each region; else exact runs, one shape for each class.
    """

    folder: Path
    classes: Sequence[str]
    palette: Sequence[Colour]
    model: str
    polygons: bool
    tolerance: float
    rows: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, image: Labeled) -> None:
        """Take one image; may be called by several threads."""
        row = self.row(image)
        with self._lock:
            self.rows[image.name] = row

    @abstractmethod
    def row(self, image: Labeled) -> str:
        """Return what the file of all images has of this one, or write its own file."""

    def close(self) -> None:
        """Write what is of all images, sorted by name; nothing where each has a file of its own."""
        return

    def shapes(self, image: Labeled) -> Iterator[Shape]:
        """Yield what an image shows, class by class."""
        found = np.flatnonzero(np.bincount(image.mask.ravel(), minlength=256)).tolist()
        for label in found:
            if label >= len(self.classes) or self.classes[label].lower() in BACKGROUND:
                continue
            inside = image.mask == label
            if not self.polygons:
                yield Shape(label, Patch(0, 0, inside), _score(image.confidence[inside]))
                continue
            for rings in trace(inside):
                patch = fill(rings, inside.shape)
                score = _score(patch_of(image.confidence, patch)[patch.inside])
                simple = [simplify(ring, self.tolerance) for ring in rings]
                yield Shape(label, patch, score, joined(simple))

    def write(self, name: str, text: str) -> None:
        """Write a text file of the folder, whole or not at all."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        archive.write_text(path, text)


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
                    "bbox": _bounds(shape.patch),
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
        left, top, width, height = _bounds(shape.patch)
        inside = shape.patch.inside[top : top + height, left : left + width]
        corners = [[left, top], [left + width - 1, top + height - 1]]
        data = b64encode(bitmap_of(inside)).decode()
        return common | {"shape_type": "mask", "points": corners, "mask": data}


class CvatWriter(Writer):
    """CVAT for images 1.1: polygons, or masks as runs in their bounds."""

    def row(self, image: Labeled) -> str:
        """Return the element of one image, yet without its id."""
        height, width = image.mask.shape
        name = quoteattr(image.known_as)
        shapes = "".join(f"    {self._shape(shape)}\n" for shape in self.shapes(image))
        return f'name={name} width="{width}" height="{height}">\n{shapes}  </image>\n'

    def _shape(self, shape: Shape) -> str:
        common = f'label={quoteattr(self.classes[shape.label])} source="auto" occluded="0"'
        if shape.ring is not None:
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in shape.ring)
            return f'<polygon {common} points="{points}" z_order="0"/>'
        left, top, width, height = _bounds(shape.patch)
        inside = shape.patch.inside[top : top + height, left : left + width]
        runs = ", ".join(map(str, encode_runs(inside)))
        place = f'left="{left}" top="{top}" width="{width}" height="{height}"'
        return f'<mask {common} rle="{runs}" {place} z_order="0"/>'

    def close(self) -> None:
        """Write annotations.xml."""
        labels = "".join(
            f"    <label><name>{escape(name)}</name><color>{_hex(self.palette[i])}</color>"
            "<attributes></attributes></label>\n"
            for i, name in enumerate(self.classes)
        )
        images = "".join(
            f'  <image id="{i}" {self.rows[name]}' for i, name in enumerate(sorted(self.rows))
        )
        self.write(
            "annotations.xml",
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
            f"  <meta><task><labels>\n{labels}  </labels></task></meta>\n{images}</annotations>\n",
        )


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
        score = _score(image.confidence)
        prediction = {"model_version": self.model, "score": score, "result": result}
        data = {"image": f"/data/local-files/?d={image.known_as}"}
        return json.dumps({"data": data, "predictions": [prediction]})

    def close(self) -> None:
        """Write tasks.json and config.xml."""
        rows = ",\n".join(self.rows[name] for name in sorted(self.rows))
        self.write("tasks.json", f"[\n{rows}\n]\n")
        tag = "PolygonLabels" if self.polygons else "BrushLabels"
        labels = "".join(
            f'    <Label value={quoteattr(name)} background="{_hex(self.palette[i])}"/>\n'
            for i, name in enumerate(self.classes)
            if name.lower() not in BACKGROUND
        )
        self.write(
            "config.xml",
            f'<View>\n  <Image name="image" value="$image"/>\n  <{tag} name="label" '
            f'toName="image">\n{labels}  </{tag}>\n</View>\n',
        )


class UltralyticsWriter(Writer):
    """Ultralytics' text files of polygons, in shares of the image's size."""

    def row(self, image: Labeled) -> str:
        """Write the file of one image."""
        size = image.mask.shape[::-1]
        lines = []
        for shape in self.shapes(image):
            points = [] if shape.ring is None else (shape.ring / size).ravel()
            number = self._numbers()[shape.label]
            lines.append(" ".join([str(number), *(f"{v:.7g}" for v in points)]))
        self.write(f"labels/{image.name}.txt", "".join(f"{line}\n" for line in lines))
        return ""

    def close(self) -> None:
        """Write data.yaml."""
        names = "".join(
            f"  {number}: {json.dumps(self.classes[label])}\n"
            for label, number in self._numbers().items()
        )
        self.write("data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{names}")

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


def _score(confidence: np.ndarray) -> float:
    return round(float(confidence.mean()) / 255, 4) if confidence.size else 0.0


def _bounds(patch: Patch) -> tuple[int, int, int, int]:
    """Return left, top, width and height in pixels of what is inside."""
    rows, columns = np.flatnonzero(patch.inside.any(1)), np.flatnonzero(patch.inside.any(0))
    height, width = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
    return int(columns[0]) + patch.left, int(rows[0]) + patch.top, width, height


def _numbers(ring: Ring) -> list[float]:
    return [round(float(v), 2) for v in ring.ravel()]


def _hex(colour: Sequence[int]) -> str:
    return "#" + bytes(colour).hex()
