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

from .... import IGNORE
from ...images import open_image
from ...labeling.coco_files import (
    ADVICE,
    BESIDE,
    CONTENT,
    CocoFile,
    categories_of,
    find_coco,
    folders_of,
    is_id,
    kind_of,
    region_of,
    segments_of,
)
from ...labeling.drawn import DrawnSettings, DrawnSource, Subsets, drawn_source
from ...labeling.finding import Images, clean, part_of, subset_named
from ...labeling.regions import Drawing, Region
from ...outside.files import LeftOut, read_file
from ...outside.text import Wrong, checked, read_json
from ...registry import SOURCES
from ...source import Entry


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
            raise ValueError(f"{path} has the segment {strange}, which its JSON lacks: {ADVICE}")
        table = np.array([known[int(code)] for code in found], np.uint8)
        return read_file(self.root / entry.image), table[places.reshape(codes.shape)]


@SOURCES.register("coco")
def load_coco(root: Path, settings: CocoSettings) -> DrawnSource:
    """List COCO's JSON (instances, stuff, panoptic) and images, polygons and RLE.

    Of things that overlap the smallest lies on top; pixels that nobody drew are the class
    background, or ignored where stuff is drawn. Images without annotations are unlabeled.
    """
    left_out = LeftOut()
    images = Images(root, left_out)
    files = list(_chosen(root, settings, left_out))
    images.tell_unread(find_coco(root))
    if files[0].kind == "panoptic":
        return _panoptic(root, files, images, settings, left_out)
    classes, colours = categories_of(root, files)
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


def _chosen(root: Path, settings: CocoSettings, left_out: LeftOut) -> Iterator[CocoFile]:
    """Yield the files that are to be read, stuff after instances."""
    by_kind: dict[str, list[CocoFile]] = {}
    for name in find_coco(root):
        if Path(name).name.startswith(BESIDE):
            left_out.add("files of keypoints and captions", name)
            continue
        value = read_json(root / name, ADVICE)
        content = checked(value, CONTENT, root / name, ADVICE)
        kind = kind_of(name, content)
        words = Path(name).stem.replace("-", "_").split("_")
        file = CocoFile(name, kind, subset_named(words[::-1], part_of(name)), content)
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


def _drawings(
    root: Path,
    file: CocoFile,
    images: Images,
    classes: Mapping[int, str],
    settings: CocoSettings,
    left_out: LeftOut,
) -> Iterator[tuple[str, Drawing]]:
    rows = {row["id"] if is_id(row["id"]) else None: row for row in file.content["images"]}
    if len(rows) != len(file.content["images"]) or None in rows:
        raise ValueError(f"{root / file.name} gives two images one id: {ADVICE}")
    found: dict[Any, list[Region]] = {id_: [] for id_ in rows}
    for place, annotation in enumerate(file.content["annotations"]):
        try:
            region = region_of(annotation, file, rows, classes, settings.crowd == "class")
        except Wrong as error:
            raise ValueError(
                f"{root / file.name} is damaged ({error.within(f'annotations[{place}]')}): {ADVICE}"
            ) from None
        if region is None:
            left_out.add("annotations without an outline (boxes alone)", file.name)
        else:
            found[annotation["image_id"]].append(region)
    folders = folders_of(file)
    for id_, row in rows.items():
        size = (row["height"], row["width"]) if "height" in row and "width" in row else None
        yield (
            images.find(row["file_name"], folders, file.name),
            Drawing(file.name, tuple(found[id_]), size),
        )


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
        joined=first.joined or _same_layers(first, drawing),
    )


def _same_layers(first: Drawing, second: Drawing) -> bool:
    """Tell whether two drawings are of one kind: not things of one file and stuff of another."""
    layers = ({bool(region.layer) for region in drawing.regions} for drawing in (first, second))
    return not set.isdisjoint(*layers)


def _panoptic(
    root: Path, files: list[CocoFile], images: Images, settings: CocoSettings, left_out: LeftOut
) -> DrawnSource:
    classes, colours = categories_of(root, files)
    subsets: Subsets = {}
    segments: dict[str, dict[int, str]] = {}
    for file in files:
        rows = {row["id"]: row for row in file.content["images"] if is_id(row["id"])}
        for row in rows.values():
            subsets.setdefault(file.subset, {})[
                images.find(row["file_name"], folders_of(file), file.name)
            ] = None
        for place, annotation in enumerate(file.content["annotations"]):
            try:
                id_, png, labels = segments_of(annotation, rows, classes, settings.crowd == "class")
            except Wrong as error:
                raise ValueError(
                    f"{root / file.name} is damaged ({error.within(f'annotations[{place}]')}): "
                    f"{ADVICE}"
                ) from None
            image = images.find(rows[id_]["file_name"], folders_of(file), file.name)
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


def _png(root: Path, file: CocoFile, name: str) -> str:
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
