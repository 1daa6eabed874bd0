"""The JSON files of COCO's form: found, checked, and their annotations as regions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...plain import shown
from ..outside.files import LeftOut, read_file, walk
from ..outside.text import Wrong, anything, fields, list_of, number, text
from .drawn import NOBODY
from .regions import Part, Polygon, Region, Runs, flat_ring

Kind = Literal["instances", "stuff", "panoptic"]
ADVICE = "export it from the tool again"
_WHOLE = number(0, 1 << 62)
_SIDE = number(1, 1 << 20)
_IMAGE = fields({"id": anything, "file_name": text}, {"width": _SIDE, "height": _SIDE}, open=True)
_CATEGORY = fields({"id": _WHOLE, "name": text}, {"supercategory": anything}, open=True)
CONTENT = fields(
    {
        "images": list_of(_IMAGE),
        "annotations": list_of(anything),
        "categories": list_of(_CATEGORY),
    },
    open=True,
)
_OTHER_STUFF = "other"
_THINGS, _CROWDS, _STUFF = 2, 1, 0
"""Layers: things lie on crowds, both on stuff."""
BESIDE = ("person_keypoints", "captions", "image_info")
"""How files of COCO's begin that are of no use here."""


@dataclass(frozen=True)
class CocoFile:
    """A JSON file of annotations: its path below the root, what it holds, for which subset."""

    name: str
    kind: Kind
    subset: str
    content: dict[str, Any]


def find_coco(root: Path) -> list[str]:
    """Return the JSON files below a root that may be COCO's, as paths below it."""
    names = [name for name, _ in walk(root, "", LeftOut()) if name.endswith(".json")]
    return sorted(name for name in names if _starts_like_coco(root / name))


def _starts_like_coco(path: Path) -> bool:
    """Tell by the name, or by its fields, whether a JSON file is COCO's."""
    if path.name.startswith(("instances", "stuff", "panoptic", "_annotations.coco", *BESIDE)):
        return True
    data = read_file(path)
    return all(word in data for word in (b'"images"', b'"annotations"', b'"categories"'))


def kind_of(name: str, content: Mapping[str, Any]) -> Kind:
    """Return what a file holds, by its name or its first annotation."""
    stem = Path(name).stem
    first = next(iter(content["annotations"]), None)
    if stem.startswith("panoptic") or (isinstance(first, dict) and "segments_info" in first):
        return "panoptic"
    return "stuff" if stem.startswith("stuff") else "instances"


def categories_of(
    root: Path, files: list[CocoFile]
) -> tuple[dict[int, str], dict[str, tuple[int, int, int]]]:
    """Return the name of each category id, in the order of the ids, and colours by name."""
    names: dict[int, str] = {}
    colours: dict[str, tuple[int, int, int]] = {}
    for file in files:
        categories = file.content["categories"]
        parents = [c.get("supercategory") for c in categories]
        used = {a["category_id"] for a in file.content["annotations"] if _is_of_category(a)}
        for category in categories:
            name, id_ = category["name"], category["id"]
            # Roboflow puts the project's name first, as the parent of all; nothing is drawn of it.
            if name in parents and category.get("supercategory") == "none" and id_ not in used:
                continue
            if file.kind == "stuff" and name == _OTHER_STUFF:
                name = ""  # stands for all things: nobody says which
            if names.setdefault(id_, name) != name:
                raise ValueError(
                    f"{root / file.name} calls category {id_} {name!r}, and another file "
                    f"{names[id_]!r}: convert them apart, or correct one"
                )
            match category.get("color"):
                case [int(red), int(green), int(blue)] if 0 <= min(red, green, blue) < 256:
                    colours[name] = (min(red, 255), min(green, 255), min(blue, 255))
    ordered = dict(sorted(names.items()))
    for name in {name for name in names.values() if name}:
        if list(names.values()).count(name) > 1:
            raise ValueError(f"{root} has two categories called {name!r}: rename one")
    return ordered, colours


def _is_of_category(annotation: Any) -> bool:
    return isinstance(annotation, dict) and isinstance(annotation.get("category_id"), int)


def folders_of(file: CocoFile) -> list[str]:
    """Return where a file's images may lie, by what it is called and where it lies itself."""
    here, stem = Path(file.name).parent.as_posix(), Path(file.name).stem
    part = stem.split("_", 1)[-1]
    own = [here, f"{here}/images", f"{here}/data"]
    return [part, f"images/{part}", file.subset, f"images/{file.subset}", *own, "", "images"]


def region_of(
    annotation: Any,
    file: CocoFile,
    rows: Mapping[Any, Any],
    classes: Mapping[int, str],
    crowd_counts: bool,
) -> Region | None:
    """Return what an annotation covers, None for a box alone; crowds count as their class where
    `crowd_counts`. Raises Wrong for an annotation that is none."""
    value = fields({"image_id": anything, "category_id": _WHOLE}, open=True)(annotation)
    if not is_id(value["image_id"]) or value["image_id"] not in rows:
        raise Wrong(f"is of the image {shown(value['image_id'])}, which is not listed")
    if value["category_id"] not in classes:
        # Roboflow's parent of all was dropped where nothing is drawn of it.
        raise Wrong(f"is of the category {value['category_id']}, which is not listed")
    parts = _parts(value.get("segmentation"), rows[value["image_id"]])
    if not parts:
        return None
    crowd = value.get("iscrowd") in (1, True)
    label = classes[value["category_id"]] or NOBODY
    if crowd and not crowd_counts:
        label = NOBODY
    layer = _STUFF if file.kind == "stuff" else _CROWDS if crowd else _THINGS
    return Region(label, parts, layer, crowd)


def _parts(value: Any, row: Mapping[str, Any]) -> tuple[Part, ...]:
    """Read a segmentation: polygons, or runs as numbers or text."""
    if isinstance(value, dict):
        rle = fields({"counts": anything, "size": list_of(_SIDE, (2,))}, open=True)(value)
        if "height" in row and "width" in row and rle["size"] != (row["height"], row["width"]):
            raise Wrong(f"has runs of the size {rle['size']}, unlike its image")
        counts = rle["counts"]
        if not isinstance(counts, str):
            counts = np.array(list_of(number())(counts), np.int64)
        return (Runs("coco", counts, (0, 0, *rle["size"])),)
    if not isinstance(value, list) or not value:
        return ()
    rings = [flat_ring(ring) for ring in value]
    return tuple(Polygon((ring,)) for ring in rings if len(ring) > 2)


def is_id(value: Any) -> bool:
    """Tell whether a value can be an image's id."""
    return isinstance(value, int | str)


def segments_of(
    annotation: Any, rows: Mapping[Any, Any], classes: Mapping[int, str], crowd_counts: bool
) -> tuple[Any, str, dict[int, str]]:
    """Return of one panoptic image: its id, its PNG, the label of each segment. Raises Wrong."""
    one = fields({"id": number(1, (1 << 24) - 1), "category_id": _WHOLE}, open=True)
    value = fields(
        {"image_id": anything, "file_name": text, "segments_info": list_of(one)}, open=True
    )(annotation)
    if not is_id(value["image_id"]) or value["image_id"] not in rows:
        raise Wrong(f"is of the image {shown(value['image_id'])}, which is not listed")
    labels = {}
    for segment in value["segments_info"]:
        if segment["category_id"] not in classes:
            raise Wrong(f"is of the category {segment['category_id']}, which is not listed")
        crowd = segment.get("iscrowd") in (1, True) and not crowd_counts
        labels[segment["id"]] = NOBODY if crowd else classes[segment["category_id"]] or NOBODY
    return value["image_id"], value["file_name"], labels
