"""Supervisely: meta.json, and folders with img/ and ann/.

ROOT/meta.json                    classes with their colours
ROOT/NAME/img/a.jpg               ROOT/NAME/ann/a.jpg.json: polygons, bitmaps and rectangles
"""

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...labeling.drawn import DrawnSettings, DrawnSource, Subsets, drawn_source
from ...labeling.fill import box
from ...labeling.finding import PARTS, Images, part_of
from ...labeling.regions import Bitmap, Drawing, Part, Polygon, Region, ring
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
    text,
)
from ...registry import SOURCES

_ADVICE = "export it from Supervisely again"
_SIDE = number(1, 1 << 20)
_META = fields(
    {"classes": list_of(fields({"title": text}, {"color": anything}, open=True))}, open=True
)
_FILE = fields(
    {
        "size": fields({"height": _SIDE, "width": _SIDE}, open=True),
        "objects": list_of(fields({"classTitle": text}, open=True)),
    },
    open=True,
)


def find_supervisely(root: Path) -> bool:
    """Tell whether a folder is a project of Supervisely's."""
    return (root / "meta.json").is_file() and next(root.glob("*/ann"), None) is not None


@SOURCES.register("supervisely")
def load_supervisely(root: Path, settings: DrawnSettings) -> DrawnSource:
    """List a Supervisely project: meta.json, and img/ and ann/ of each data set in it.

    A later object lies on top. Data sets, or tags of images, called train, val and test say the
    part; images of which nothing is drawn are unlabeled.
    """
    if not find_supervisely(root):
        raise FileNotFoundError(f"{root} has no meta.json beside folders with ann/")
    meta = checked(read_json(root / "meta.json", _ADVICE), _META, root / "meta.json", _ADVICE)
    left_out = LeftOut()
    images = Images(root, left_out)
    files = {name for name, _ in walk(root, "", LeftOut()) if name.endswith(".json")}
    images.tell_unread({"meta.json", *(f for f in files if PurePosixPath(f).parent.name == "ann")})
    subsets: Subsets = {}
    for image in images.all:
        path = PurePosixPath(image)
        if path.parent.name != "img":
            left_out.add("images outside of img/", image)
            continue
        file = (path.parent.parent / "ann" / f"{path.name}.json").as_posix()
        if file not in files:
            subsets.setdefault("unlabeled", {})[image] = None
            continue
        content = checked(read_json(root / file, _ADVICE), _FILE, root / file, _ADVICE)
        subset = _subset(content, part_of(image))
        subsets.setdefault(subset, {})[image] = _drawing(root, file, content, left_out)
        files.discard(file)
    for file in sorted(files):
        if PurePosixPath(file).parent.name == "ann":
            left_out.add("annotations of images that are not there", file)
    return drawn_source(
        "supervisely",
        root,
        subsets,
        settings,
        left_out,
        classes=[row["title"] for row in meta["classes"]],
        colours=_colours(meta["classes"]),
    )


def _colours(rows: tuple[dict[str, Any], ...]) -> dict[str, tuple[int, int, int]]:
    found = {}
    for row in rows:
        word = row.get("color")
        if isinstance(word, str) and len(word) == 7 and word[0] == "#":
            try:
                red, green, blue = bytes.fromhex(word[1:])
            except ValueError:
                continue
            found[row["title"]] = (red, green, blue)
    return found


def _subset(content: dict[str, Any], default: str) -> str:
    tags = content.get("tags")
    for tag in tags if isinstance(tags, list) else ():
        name = tag.get("name") if isinstance(tag, dict) else tag
        if isinstance(name, str) and name.lower() in PARTS:
            return PARTS[name.lower()]
    return default


def _drawing(root: Path, file: str, content: dict[str, Any], left_out: LeftOut) -> Drawing:
    regions = []
    for place, item in enumerate(content["objects"]):
        try:
            part = _part(item)
        except Wrong as error:
            raise ValueError(
                f"{root / file} is damaged ({error.within(f'objects[{place}]')}): {_ADVICE}"
            ) from None
        if part is None:
            left_out.add(f"objects without an area ({item.get('geometryType')})", file)
        else:
            regions.append(Region(item["classTitle"], (part,)))
    return Drawing(file, tuple(regions), (content["size"]["height"], content["size"]["width"]))


def _part(item: dict[str, Any]) -> Part | None:
    """Return what an object covers. Supervisely's points are pixels, here taken by their centres;
    a rectangle holds its last row and column."""
    kind = item.get("geometryType")
    if kind == "bitmap":
        bitmap = plain_object(item.get("bitmap"))
        origin = list_of(number(-(1 << 20), 1 << 20), (2,))(bitmap.get("origin"))
        return Bitmap(text(bitmap.get("data")), origin[1], origin[0])
    if kind not in ("polygon", "rectangle"):
        return None
    points = plain_object(item.get("points"))
    outline = ring(points.get("exterior"))
    if kind == "rectangle":
        if len(outline) != 2:
            raise Wrong("is a rectangle without two corners")
        low, high = np.floor(outline.min(0)), np.floor(outline.max(0)) + 1
        return Polygon((box(*low, *high),))
    holes = points.get("interior") or []
    if not isinstance(holes, list):
        raise Wrong("has an interior that is no list")
    rings = [outline, *(ring(hole) for hole in holes)]
    return Polygon(tuple(one + 0.5 for one in rings)) if len(outline) > 2 else None
