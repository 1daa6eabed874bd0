"""COCO's JSON: instances, stuff and panoptic, as COCO and most labelling tools export it.

ROOT/annotations/instances_train.json      images below ROOT, in train/, images/ or beside the JSON
ROOT/annotations/stuff_train.json          painted below the things
ROOT/annotations/panoptic_train.json       and the folder panoptic_train/ of PNGs with segment ids
ROOT/train/_annotations.coco.json          as Roboflow writes it
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ... import IGNORE
from ...plain import shown
from ..images import open_image
from ..labeling.drawn import NOBODY, DrawnSettings, DrawnSource, Subsets, drawn_source
from ..labeling.finding import Images, clean, part_of, subset_named
from ..labeling.regions import Drawing, Part, Polygon, Region, Runs, flat_ring
from ..outside.files import LeftOut, read_file, walk
from ..outside.text import Wrong, anything, checked, fields, list_of, number, read_json, text
from ..registry import SOURCES
from ..source import Entry

Kind = Literal["instances", "stuff", "panoptic"]
_ADVICE = "export it from the tool again"
_WHOLE = number(0, 1 << 62)
_SIDE = number(1, 1 << 20)
_IMAGE = fields({"id": anything, "file_name": text}, {"width": _SIDE, "height": _SIDE}, open=True)
_CATEGORY = fields({"id": _WHOLE, "name": text}, {"supercategory": anything}, open=True)
_FILE = fields(
    {
        "images": list_of(_IMAGE),
        "annotations": list_of(anything),
        "categories": list_of(_CATEGORY),
    },
    open=True,
)
_OTHER_STUFF = "other"
_THINGS, _NOBODYS, _STUFF = 2, 1, 0


@dataclass(frozen=True, kw_only=True)
class CocoSettings(DrawnSettings):
    """Which of COCO's files are read, and how."""

    parts: Literal["auto", "instances", "stuff", "panoptic"] = "auto"
    """Files to read: auto is instances with stuff below them, or panoptic where that is alone."""
    crowd: Literal["ignore", "class"] = "ignore"
    """Rough outlines of many things at once (iscrowd): pixels of no class, or of theirs."""


@dataclass(kw_only=True)
class CocoSource(DrawnSource):
    """A COCO data set; panoptic masks are PNGs of segment ids."""

    segments: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """By image, the class id of each segment of its PNG."""

    def read(self, entry: Entry) -> tuple[bytes | np.ndarray, np.ndarray | None]:
        """Return an image's file and its class ids, uint8 (H, W); None for an unlabeled image."""
        if entry.mask is None or entry.name not in self.segments:
            return super().read(entry)
        path = self.root / entry.mask
        picture = np.asarray(open_image(read_file(path), str(path), ("PNG",)).convert("RGB"))
        codes = picture.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
        found, places = np.unique(codes, return_inverse=True)
        known = {0: self.drawings[entry.name].rest, **self.segments[entry.name]}
        strange = next((int(code) for code in found if int(code) not in known), None)
        if strange is not None:
            raise ValueError(f"{path} has the segment {strange}, which its JSON lacks: {_ADVICE}")
        table = np.array([known[int(code)] for code in found], np.uint8)
        return read_file(self.root / entry.image), table[places.reshape(codes.shape)]


@dataclass(frozen=True)
class _File:
    """A JSON file of annotations: its path below the root, what it holds, for which subset."""

    name: str
    kind: Kind
    subset: str
    content: dict[str, Any]


def find_coco(root: Path) -> list[str]:
    """Return the JSON files below a root that may be COCO's, as paths below it."""
    names = [name for name, _ in walk(root, "", LeftOut()) if name.endswith(".json")]
    return sorted(name for name in names if _starts_like_coco(root / name))


@SOURCES.register("coco")
def load_coco(root: Path, settings: CocoSettings) -> DrawnSource:
    """List COCO's JSON (instances, stuff, panoptic) and images, polygons and RLE.

    Of things that overlap the smallest lies on top; pixels that nobody drew are the class
    background, or ignored where stuff is drawn. Images without annotations are unlabeled.
    """
    left_out = LeftOut()
    images = Images(root, left_out)
    files = list(_chosen(root, settings, left_out))
    if files[0].kind == "panoptic":
        return _panoptic(root, files, images, settings, left_out)
    classes, colours = _categories(root, files)
    subsets: Subsets = {}
    for file in files:
        for image, drawing in _drawings(root, file, images, classes, settings, left_out):
            _join(subsets.setdefault(file.subset, {}), image, drawing)
    _take_others(images, subsets, left_out)
    names = [name for name in classes.values() if name]
    return drawn_source(
        "coco",
        root,
        subsets,
        settings,
        left_out,
        classes=list(dict.fromkeys(names)),
        colours=colours,
        whole=any(file.kind == "stuff" for file in files),
        smallest_on_top=True,
    )


def _starts_like_coco(path: Path) -> bool:
    """Tell by the name, or by its fields, whether a JSON file is COCO's."""
    if path.name.startswith(("instances", "stuff", "panoptic", "_annotations.coco")):
        return True
    data = read_file(path)
    return all(word in data for word in (b'"images"', b'"annotations"', b'"categories"'))


def _chosen(root: Path, settings: CocoSettings, left_out: LeftOut) -> Iterator[_File]:
    """Yield the files that are to be read, stuff after instances."""
    by_kind: dict[str, list[_File]] = {}
    for name in find_coco(root):
        if Path(name).name.startswith(("person_keypoints", "captions", "image_info")):
            left_out.add("files of keypoints and captions", name)
            continue
        value = read_json(root / name, _ADVICE)
        content = checked(value, _FILE, root / name, _ADVICE)
        kind = _kind(name, content)
        words = Path(name).stem.replace("-", "_").split("_")
        file = _File(name, kind, subset_named(words[::-1], part_of(name)), content)
        by_kind.setdefault(kind, []).append(file)
    parts = settings.parts
    wanted = (parts,) if parts != "auto" else ("instances", "stuff")
    if parts == "auto" and not any(kind in by_kind for kind in wanted):
        wanted = ("panoptic",)
    if not any(kind in by_kind for kind in wanted):
        there = ", ".join(by_kind) or "none"
        raise FileNotFoundError(
            f"{root} has no JSON file of COCO's kind {' or '.join(wanted)} (found: {there}): put "
            "it into annotations/"
        )
    for kind, files in by_kind.items():
        for file in files if kind not in wanted else ():
            left_out.add("JSON files of another kind", file.name)
    for kind in wanted:
        yield from by_kind.get(kind, ())


def _kind(name: str, content: Mapping[str, Any]) -> Kind:
    stem = Path(name).stem
    first = next(iter(content["annotations"]), None)
    if stem.startswith("panoptic") or (isinstance(first, dict) and "segments_info" in first):
        return "panoptic"
    return "stuff" if stem.startswith("stuff") else "instances"


def _categories(
    root: Path, files: list[_File]
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


def _drawings(
    root: Path,
    file: _File,
    images: Images,
    classes: Mapping[int, str],
    settings: CocoSettings,
    left_out: LeftOut,
) -> Iterator[tuple[str, Drawing]]:
    rows = {row["id"] if _hashable(row["id"]) else None: row for row in file.content["images"]}
    if len(rows) != len(file.content["images"]) or None in rows:
        raise ValueError(f"{root / file.name} gives two images one id: {_ADVICE}")
    found: dict[Any, list[Region]] = {id_: [] for id_ in rows}
    for place, annotation in enumerate(file.content["annotations"]):
        try:
            region = _region(annotation, file, rows, classes, settings)
        except Wrong as error:
            raise ValueError(
                f"{root / file.name} is damaged ({error.within(f'annotations[{place}]')}): "
                f"{_ADVICE}"
            ) from None
        if region is None:
            left_out.add("annotations without an outline (boxes alone)", file.name)
        else:
            found[annotation["image_id"]].append(region)
    folders = _folders(file)
    for id_, row in rows.items():
        size = (row["height"], row["width"]) if "height" in row and "width" in row else None
        yield (
            images.find(row["file_name"], folders, file.name),
            Drawing(file.name, tuple(found[id_]), size),
        )


def _folders(file: _File) -> list[str]:
    """Return where a file's images may lie, by what it is called and where it lies itself."""
    here, stem = Path(file.name).parent.as_posix(), Path(file.name).stem
    part = stem.split("_", 1)[-1]
    own = [here, f"{here}/images", f"{here}/data"]
    return [part, f"images/{part}", file.subset, f"images/{file.subset}", *own, "", "images"]


def _region(
    annotation: Any,
    file: _File,
    rows: Mapping[Any, Any],
    classes: Mapping[int, str],
    settings: CocoSettings,
) -> Region | None:
    value = fields({"image_id": anything, "category_id": _WHOLE}, open=True)(annotation)
    if not _hashable(value["image_id"]) or value["image_id"] not in rows:
        raise Wrong(f"is of the image {shown(value['image_id'])}, which is not listed")
    if value["category_id"] not in classes:
        # Roboflow's parent of all was dropped where nothing is drawn of it.
        raise Wrong(f"is of the category {value['category_id']}, which is not listed")
    parts = _parts(value.get("segmentation"), rows[value["image_id"]])
    if not parts:
        return None
    crowd = value.get("iscrowd") in (1, True)
    label = classes[value["category_id"]] or NOBODY
    if crowd and settings.crowd == "ignore":
        label = NOBODY
    layer = _STUFF if file.kind == "stuff" else _NOBODYS if crowd else _THINGS
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


def _hashable(value: Any) -> bool:
    return isinstance(value, int | str)


def _take_others(
    images: Images, subsets: Subsets, left_out: LeftOut, masks: Collection[str] = ()
) -> None:
    """Take images that no JSON lists as unlabeled where their folder says so; count the others."""
    listed = {image for part in subsets.values() for image in part}
    for image in images.all:
        if image in listed or image in masks:
            continue
        if any(folder.lower().startswith("unlabeled") for folder in Path(image).parts[:-1]):
            subsets.setdefault("unlabeled", {})[image] = None
        else:
            left_out.add("images that no annotation file lists", image)


def _join(there: dict[str, Drawing | None], image: str, drawing: Drawing) -> None:
    """Put an image's drawing beside one of another file: stuff and things of one image."""
    first = there.get(image)
    if first is None:
        there[image] = drawing
        return
    there[image] = Drawing(
        first.file if first.regions else drawing.file,
        first.regions + drawing.regions,
        first.size or drawing.size,
    )


def _panoptic(
    root: Path, files: list[_File], images: Images, settings: CocoSettings, left_out: LeftOut
) -> DrawnSource:
    classes, colours = _categories(root, files)
    subsets: Subsets = {}
    segments: dict[str, dict[int, str]] = {}
    for file in files:
        rows = {row["id"]: row for row in file.content["images"] if _hashable(row["id"])}
        for row in rows.values():
            subsets.setdefault(file.subset, {})[
                images.find(row["file_name"], _folders(file), file.name)
            ] = None
        for place, annotation in enumerate(file.content["annotations"]):
            try:
                id_, png, labels = _segments(annotation, rows, classes, settings)
            except Wrong as error:
                raise ValueError(
                    f"{root / file.name} is damaged ({error.within(f'annotations[{place}]')}): "
                    f"{_ADVICE}"
                ) from None
            image = images.find(rows[id_]["file_name"], _folders(file), file.name)
            drawing = Drawing(_png(root, file, png), tuple(Region(n, ()) for n in labels.values()))
            subsets[file.subset][image] = drawing
            segments[image] = labels
    pngs = {drawing.file for part in subsets.values() for drawing in part.values() if drawing}
    _take_others(images, subsets, left_out, pngs)
    source = drawn_source(
        "coco",
        root,
        subsets,
        settings,
        left_out,
        classes=[name for name in classes.values() if name],
        colours=colours,
        whole=True,
    )
    ids = {name: i for i, name in enumerate(source.classes)}
    told = {
        image: {code: ids.get(label, IGNORE) for code, label in labels.items()}
        for image, labels in segments.items()
    }
    values = vars(source)
    return CocoSource(**values, segments=told)


def _segments(
    annotation: Any, rows: Mapping[Any, Any], classes: Mapping[int, str], settings: CocoSettings
) -> tuple[Any, str, dict[int, str]]:
    """Return of one panoptic image: its id, its PNG, the label of each segment."""
    one = fields({"id": number(1, (1 << 24) - 1), "category_id": _WHOLE}, open=True)
    value = fields(
        {"image_id": anything, "file_name": text, "segments_info": list_of(one)}, open=True
    )(annotation)
    if not _hashable(value["image_id"]) or value["image_id"] not in rows:
        raise Wrong(f"is of the image {shown(value['image_id'])}, which is not listed")
    labels = {}
    for segment in value["segments_info"]:
        if segment["category_id"] not in classes:
            raise Wrong(f"is of the category {segment['category_id']}, which is not listed")
        crowd = segment.get("iscrowd") in (1, True) and settings.crowd == "ignore"
        labels[segment["id"]] = NOBODY if crowd else classes[segment["category_id"]] or NOBODY
    return value["image_id"], value["file_name"], labels


def _png(root: Path, file: _File, name: str) -> str:
    """Return the path below the root of a panoptic PNG."""
    last = clean(name, file.name)[-1]
    here, stem = Path(file.name).parent, Path(file.name).stem
    part = stem.split("_", 1)[-1]
    for folder in (here / stem, Path(stem), here / part, here / f"panoptic_{part}", here):
        path = folder / last
        if last != ".." and (root / path).is_file() and (root / path).suffix == ".png":
            return path.as_posix()
    raise FileNotFoundError(
        f"{root / here / stem / last} is missing, which {root / file.name} names: put it there"
    )
