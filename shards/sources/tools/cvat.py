"""CVAT: images 1.1 (annotations.xml) and segmentation masks 1.1 (labelmap.txt).

ROOT/annotations.xml                       polygons, masks, boxes and ellipses, by z_order
ROOT/images/...                            the images, perhaps in folders by part

Masks 1.1 is read as `labelmap` reads it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ....plain import shown
from ...labeling.documents import read_xml
from ...labeling.drawn import DrawnSettings, Subsets, drawn_source
from ...labeling.fill import box, ellipse, turned
from ...labeling.finding import Images, head_of, part_of, subset_named
from ...labeling.regions import Drawing, Part, Polygon, Region, Runs, flat_ring, real
from ...outside.files import LeftOut, walk
from ...outside.text import Wrong
from ...registry import SOURCES
from ...source import Source
from .labelmap import LabelmapSettings, find_labelmap, load_labelmap

_ADVICE = "export it from CVAT again as CVAT for images 1.1"
_MOST = 1 << 20


@dataclass(frozen=True, kw_only=True)
class CvatSettings(DrawnSettings):
    """How what was drawn becomes classes."""


def find_cvat(root: Path) -> list[str]:
    """Return CVAT's XML files below a root, as paths below it."""
    names = sorted(name for name, _ in walk(root, "", LeftOut()) if name.endswith(".xml"))
    found = {name: head_of(root / name) for name in names}
    return [name for name, data in found.items() if b"<annotations" in data]


@SOURCES.register("cvat")
def load_cvat(root: Path, settings: CvatSettings) -> Source:
    """List what CVAT exports: images 1.1 (annotations.xml), or segmentation masks 1.1.

    A higher z_order lies on top, then what comes later; images of which nothing is drawn are
    unlabeled.
    """
    files = find_cvat(root)
    if not files:
        if find_labelmap(root) is not None:
            return load_labelmap(root, LabelmapSettings(val=settings.val))
        raise FileNotFoundError(
            f"{root} has neither CVAT's annotations.xml nor labelmap.txt: export as CVAT for "
            "images 1.1 or segmentation mask 1.1"
        )
    left_out = LeftOut()
    images = Images(root, left_out)
    subsets: Subsets = {}
    classes: list[str] = []
    colours: dict[str, tuple[int, int, int]] = {}
    for file in files:
        tree = read_xml(root / file)
        if tree.find("track") is not None:
            raise ValueError(f"{root / file} is of a video, with tracks: {_ADVICE}")
        for name, colour in _labels(tree):
            if name not in classes:
                classes.append(name)
            if colour is not None:
                colours[name] = colour
        for element in tree.iter("image"):
            subset, image, drawing = _image(root, file, element, images, left_out)
            if any(image in part for part in subsets.values()):
                raise ValueError(f"{root / file} lists the image {image} twice: {_ADVICE}")
            subsets.setdefault(subset, {})[image] = drawing
    images.tell_unread(files)
    listed = {image for part in subsets.values() for image in part}
    for image in images.all:
        if image not in listed:
            subsets.setdefault("unlabeled", {})[image] = None
    return drawn_source("cvat", root, subsets, settings, left_out, classes=classes, colours=colours)


def _labels(tree: Element) -> Iterator[tuple[str, tuple[int, int, int] | None]]:
    for label in tree.iterfind("./meta//label"):
        name, word = label.findtext("name", ""), label.findtext("color", "")
        if label.findtext("parent"):
            continue
        digits = word.removeprefix("#")
        try:
            red, green, blue = bytes.fromhex(digits)
            yield name, (red, green, blue)
        except ValueError:
            yield name, None


def _image(
    root: Path, file: str, element: Element, images: Images, left_out: LeftOut
) -> tuple[str, str, Drawing]:
    name, part = element.get("name", ""), element.get("subset", "")
    here = Path(file).parent
    folders = [(here / f).as_posix() for f in (f"images/{part}", "images", "", "images/default")]
    image = images.find(name, folders, file)
    try:
        size = (_whole(element, "height", 1), _whole(element, "width", 1))
        shapes = [(_order(shape), *_shape(shape)) for shape in element]
    except Wrong as error:
        raise ValueError(
            f"{root / file} is damaged (image {shown(name)}: {error}): {_ADVICE}"
        ) from None
    for _, region, kind in shapes:
        if region is None:
            left_out.add(f"shapes without an area ({kind})", f"{file}, {name}")
    ordered = sorted((s for s in shapes if s[1] is not None), key=lambda s: s[0])
    regions = tuple(region for _, region, _ in ordered if region is not None)
    subset = subset_named([part], part_of(image))
    return subset, image, Drawing(file, regions, size)


def _order(shape: Element) -> int:
    return _whole(shape, "z_order", -_MOST) if shape.get("z_order") is not None else 0


def _shape(shape: Element) -> tuple[Region | None, str]:
    kind, label = shape.tag, shape.get("label", "")
    part: Part | None = None
    if kind == "polygon":
        words = shape.get("points", "").replace(";", ",").split(",")
        ring = flat_ring([_number(word) for word in words])
        part = Polygon((ring,)) if len(ring) > 2 else None
    elif kind == "box":
        left, top, right, bottom = (_of(shape, n) for n in ("xtl", "ytl", "xbr", "ybr"))
        middle = ((left + right) / 2, (top + bottom) / 2)
        degrees = _of(shape, "rotation") if shape.get("rotation") else 0.0
        part = Polygon((turned(box(left, top, right, bottom), middle, degrees),))
    elif kind == "ellipse":
        degrees = _of(shape, "rotation") if shape.get("rotation") else 0.0
        x, y, rx, ry = (_of(shape, n) for n in ("cx", "cy", "rx", "ry"))
        part = Polygon((ellipse((x, y), (abs(rx), abs(ry)), degrees),))
    elif kind == "mask":
        window = tuple(_whole(shape, n, 0) for n in ("top", "left", "height", "width"))
        runs = [_number(word) for word in shape.get("rle", "").split(",")]
        counts = np.array(runs, np.int64)
        part = Runs("rows", counts, (window[0], window[1], window[2], window[3]))
    return (None if part is None else Region(label, (part,))), kind


def _of(shape: Element, name: str) -> float:
    return _number(shape.get(name, ""))


def _whole(shape: Element, name: str, lowest: int) -> int:
    value = _number(shape.get(name, ""))
    if value != int(value) or not lowest <= value <= _MOST:
        raise Wrong(f"has a {name} of {shown(shape.get(name))}")
    return int(value)


def _number(word: str) -> float:
    try:
        return real(float(word))
    except ValueError:
        raise Wrong(f"has {shown(word)} where a number should be") from None
