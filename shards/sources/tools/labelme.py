"""LabelMe: a JSON file beside each image, its shapes painted in their order."""

from pathlib import Path
from typing import Any

import numpy as np

from ...labeling.drawn import DrawnSettings, DrawnSource, Subsets, drawn_source
from ...labeling.fill import box, ellipse
from ...labeling.finding import Images, head_of, part_of
from ...labeling.regions import Bitmap, Drawing, Part, Polygon, Region, ring
from ...outside.files import LeftOut, walk
from ...outside.text import Wrong, anything, checked, fields, list_of, number, read_json, text
from ...registry import SOURCES

_ADVICE = "save it from LabelMe again"
_SHAPE = fields({"label": text, "points": ring}, {"shape_type": anything}, open=True)
_SIDE = number(1, 1 << 20)
_FILE = fields(
    {"shapes": list_of(_SHAPE)},
    {"imagePath": text, "imageHeight": anything, "imageWidth": anything},
    open=True,
)


def find_labelme(root: Path) -> list[str]:
    """Return LabelMe's JSON files below a root, as paths below it."""
    names = sorted(name for name, _ in walk(root, "", LeftOut()) if name.endswith(".json"))
    return [name for name in names if _is_labelme(head_of(root / name))]


@SOURCES.register("labelme")
def load_labelme(root: Path, settings: DrawnSettings) -> DrawnSource:
    """List LabelMe's JSON files and images: polygons, rectangles, circles and masks.

    A later shape lies on an earlier one; the label __ignore__ belongs to no class; images without a
    JSON file are unlabeled. Folders called train, val and test say the part.
    """
    left_out = LeftOut()
    images = Images(root, left_out)
    files = find_labelme(root)
    if not files:
        raise FileNotFoundError(f"{root} has no JSON file of LabelMe's, with 'shapes'")
    subsets: Subsets = {}
    drawn: dict[str, str] = {}
    for name in files:
        content = checked(read_json(root / name, _ADVICE), _FILE, root / name, _ADVICE)
        image = _image(name, content, images)
        if drawn.setdefault(image, name) != name:
            raise ValueError(
                f"{root / drawn[image]} and {root / name} are both of {image}: keep one"
            )
        drawing = _drawing(root, name, content, left_out)
        subsets.setdefault(part_of(image), {})[image] = drawing
    images.tell_unread(files)
    for image in images.all:
        if image not in drawn:
            subsets.setdefault("unlabeled", {})[image] = None
    return drawn_source("labelme", root, subsets, settings, left_out)


def _is_labelme(data: bytes) -> bool:
    others = (b'"imagePath"', b'"imageHeight"', b'"flags"', b'"version"')
    return b'"shapes"' in data and any(word in data for word in others)


def _image(name: str, content: dict[str, Any], images: Images) -> str:
    here, stem = Path(name).parent.as_posix(), Path(name).stem
    beside = images.of_stem(name.removesuffix(".json"))
    if len(beside) == 1:
        return beside[0]
    return images.find(content.get("imagePath") or f"{stem}.jpg", [here], name)


def _drawing(root: Path, name: str, content: dict[str, Any], left_out: LeftOut) -> Drawing:
    size = None
    if content.get("imageHeight") is not None and content.get("imageWidth") is not None:
        both = [content["imageHeight"], content["imageWidth"]]
        size = checked(both, list_of(_SIDE, (2,)), root / name, _ADVICE)
    regions = []
    for place, shape in enumerate(content["shapes"]):
        try:
            part = _part(shape)
        except Wrong as error:
            raise ValueError(
                f"{root / name} is damaged ({error.within(f'shapes[{place}]')}): {_ADVICE}"
            ) from None
        if part is None:
            left_out.add(f"shapes without an area ({shape.get('shape_type')})", name)
        else:
            regions.append(Region(shape["label"], (part,)))
    return Drawing(name, tuple(regions), size)


def _part(shape: dict[str, Any]) -> Part | None:
    """Return what a shape covers; None for points and lines."""
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    if kind == "polygon":
        return Polygon((points,)) if len(points) > 2 else None
    if kind == "mask":
        data = shape.get("mask")
        if not isinstance(data, str) or len(points) != 2:
            raise Wrong("has no mask and two points")
        left, top = (int(v) for v in points.min(0))
        return Bitmap(data, top, left)
    if kind not in ("rectangle", "circle") or len(points) < 2:
        return None
    if kind == "circle":
        radius = float(np.hypot(*(points[1] - points[0])))
        return Polygon((ellipse((points[0][0], points[0][1]), (radius, radius)),))
    return Polygon((box(*points.min(0), *points.max(0)),))
