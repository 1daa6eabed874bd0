"""Label Studio's JSON: brushes, polygons, rectangles and ellipses of each task.

ROOT/project.json          the export called JSON (not JSON-MIN)
ROOT/...                   the images, found by the names that the tasks give them
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from ....plain import shown
from ...labeling.drawn import DrawnSettings, DrawnSource, Subsets, drawn_source
from ...labeling.fill import box, ellipse, turned
from ...labeling.finding import Images, head_of, part_of
from ...labeling.regions import Drawing, Part, Polygon, Region, Runs, real, ring
from ...outside.files import LeftOut, walk
from ...outside.text import (
    Wrong,
    anything,
    checked,
    fields,
    list_of,
    number,
    plain_object,
    read_json,
)
from ...registry import SOURCES

_ADVICE = "export it from Label Studio again as JSON"
_SIDE = number(1, 1 << 20)
_LABELS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels", "labels")
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?P<name>.+)")
_TASKS = list_of(
    fields({"data": plain_object, "annotations": list_of(plain_object)}, open=True),
)
_RESULT = fields({"value": plain_object}, {"type": anything}, open=True)


def find_label_studio(root: Path) -> list[str]:
    """Return Label Studio's JSON files below a root, as paths below it."""
    names = sorted(name for name, _ in walk(root, "", LeftOut()) if name.endswith(".json"))
    return [name for name in names if _is_export(head_of(root / name))]


@SOURCES.register("label-studio")
def load_label_studio(root: Path, settings: DrawnSettings) -> DrawnSource:
    """List Label Studio's JSON export and its images: brushes (RLE), polygons, boxes, ellipses.

    Of several annotations of a task, the ground truth counts, or the last that was not skipped; a
    later region lies on top. Tasks without an annotation are unlabeled images.
    """
    files = find_label_studio(root)
    if not files:
        raise FileNotFoundError(f"{root} has no JSON export of Label Studio's")
    left_out = LeftOut()
    images = Images(root, left_out)
    subsets: Subsets = {}
    seen: dict[str, str] = {}
    for file in files:
        tasks = checked(read_json(root / file, _ADVICE), _TASKS, root / file, _ADVICE)
        for place, task in enumerate(tasks):
            try:
                image = _find_image(task["data"], images, file)
                drawing = _drawing(file, task, left_out)
            except Wrong as error:
                raise ValueError(
                    f"{root / file} is damaged ({error.within(f'[{place}]')}): {_ADVICE}"
                ) from None
            if image in seen:
                raise ValueError(
                    f"{root / file} and {root / seen[image]} have two tasks of {image}: keep one"
                )
            seen[image] = file
            subset = "unlabeled" if drawing is None else part_of(image)
            subsets.setdefault(subset, {})[image] = drawing
    images.tell_unread(files)
    for image in images.all:
        if image not in seen:
            subsets.setdefault("unlabeled", {})[image] = None
    return drawn_source("label-studio", root, subsets, settings, left_out)


def _is_export(data: bytes) -> bool:
    words = (b'"annotations"', b'"result"')
    return data.lstrip()[:1] == b"[" and all(word in data for word in words)


def _find_image(data: dict[str, Any], images: Images, file: str) -> str:
    """Find a task's image: by its path, or by its name without what an upload put before it."""
    known = ("image", "img", "picture", "photo")
    words = [data[key] for key in known if isinstance(data.get(key), str)]
    words += [value for value in data.values() if isinstance(value, str) and value not in words]
    if not words:
        raise Wrong(f"names no image in {shown(data)}", ".data")
    error: Exception | None = None
    for word in words[:8]:
        for name in _names(word):
            try:
                return images.find(name, ["", Path(file).parent.as_posix()], file)
            except (FileNotFoundError, ValueError) as found:
                error = error or found
    raise error or FileNotFoundError(words[0])


def _names(word: str) -> Iterator[str]:
    """Yield what the file of an address may be called."""
    address = urlsplit(word)
    path = parse_qs(address.query).get("d", [unquote(address.path)])[0]
    last = path.replace("\\", "/").rsplit("/", 1)[-1]
    if address.scheme == "" and "/data/" not in word:
        yield path
    yield last
    uploaded = _UPLOADED.fullmatch(last)
    if uploaded:
        yield uploaded["name"]


def _drawing(file: str, task: dict[str, Any], left_out: LeftOut) -> Drawing | None:
    """Return what was drawn in a task; None where it was skipped or is yet to be done."""
    done = [a for a in task["annotations"] if not a.get("was_cancelled")]
    if not done:
        return None
    truth = [a for a in done if a.get("ground_truth")] or done[-1:]
    if len(done) > 1:
        left_out.add("annotations beside the one of their task that counts", file, len(done) - 1)
    regions: list[Region] = []
    size = None
    for place, result in enumerate(list_of(_RESULT)(truth[-1].get("result", []))):
        try:
            region, size = _region(result, size)
        except Wrong as error:
            raise error.within(f".result[{place}]") from None
        if region is None:
            left_out.add("results without an area", file)
        else:
            regions.append(region)
    return Drawing(file, tuple(regions), size)


def _region(
    result: dict[str, Any], size: tuple[int, int] | None
) -> tuple[Region | None, tuple[int, int] | None]:
    value = result["value"]
    kind = next((k for k in _LABELS if isinstance(value.get(k), list)), None)
    if kind is None or not value[kind] or "original_width" not in result:
        return None, size
    label = value[kind][0]
    if len(value[kind]) > 1 or not isinstance(label, str):
        raise Wrong(f"has the labels {shown(value[kind])}, and a region has one class")
    if result.get("image_rotation"):
        raise Wrong(
            f"was drawn on a picture turned by {shown(result['image_rotation'])} degrees, which is "
            "not read: turn it back in Label Studio"
        )
    own = (_SIDE(result.get("original_height")), _SIDE(result.get("original_width")))
    if size not in (None, own):
        raise Wrong(f"was drawn on {own[1]} x {own[0]} pixels, and another on {size}")
    part = _part(value, own)
    return (None if part is None else Region(label, (part,))), own


def _part(value: dict[str, Any], size: tuple[int, int]) -> Part | None:
    """Return what a value covers; coordinates are hundredths of the image's size."""
    scale = np.array(size[::-1]) / 100
    if "rle" in value:
        packed = value["rle"]
        if not isinstance(packed, list) or not all(type(v) is int for v in packed):
            raise Wrong("has an rle that is no list of bytes")
        return Runs("brush", packed, (0, 0, *size))
    if "points" in value:
        points = ring(value["points"]) * scale
        return Polygon((points,)) if len(points) > 2 else None
    numbers = {name: real(value[name]) for name in value if name in _NUMBERS}
    degrees = numbers.get("rotation", 0.0)
    if {"x", "y", "radiusX", "radiusY"} <= numbers.keys():
        x, y = np.array([numbers["x"], numbers["y"]]) * scale
        radii = np.abs(np.array([numbers["radiusX"], numbers["radiusY"]]) * scale)
        return Polygon((ellipse((x, y), (radii[0], radii[1]), degrees),))
    if {"x", "y", "width", "height"} <= numbers.keys():
        left, top = np.array([numbers["x"], numbers["y"]]) * scale
        width, height = np.array([numbers["width"], numbers["height"]]) * scale
        return Polygon((turned(box(left, top, left + width, top + height), (left, top), degrees),))
    return None


_NUMBERS = ("x", "y", "width", "height", "radiusX", "radiusY", "rotation")
