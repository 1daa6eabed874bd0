"""Ultralytics (YOLO) segmentation: a YAML file, images/ and labels/ with a polygon a line.

ROOT/data.yaml                 path, train, val, test, names
ROOT/images/train/a.jpg        ROOT/labels/train/a.txt: `class x y x y ...`, shares of the size
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ....plain import shown
from ...images import open_image
from ...labeling.drawn import DrawnSettings, DrawnSource, Subsets, drawn_source
from ...labeling.finding import Images, clean
from ...labeling.regions import Drawing, Polygon, Region, flat_ring
from ...outside.files import LeftOut, read_file, walk
from ...outside.text import Wrong, read_text
from ...outside.turning import upright
from ...registry import SOURCES

_PARTS = ("train", "val", "test")
_LARGEST = 1 << 20


def find_ultralytics(root: Path) -> Path | None:
    """Return the YAML file of a folder that names classes and parts."""
    for path in sorted((*root.glob("*.yaml"), *root.glob("*.yml"))):
        if path.is_file() and path.stat().st_size < _LARGEST:
            lines = read_text(path).splitlines()
            keys = {line.split(":")[0].strip() for line in lines if line[:1].isalpha()}
            if {"names", "train"} <= keys:
                return path
    return None


@SOURCES.register("ultralytics")
def load_ultralytics(root: Path, settings: DrawnSettings) -> DrawnSource:
    """List Ultralytics' segmentation data: a YAML file with names and parts, polygons in labels/.

    Of regions that overlap the smallest lies on top. Images without a file of labels are unlabeled;
    an empty file is an image in which there is nothing.
    """
    path = find_ultralytics(root)
    if path is None:
        raise FileNotFoundError(f"{root} has no YAML file with 'names' and 'train'")
    content = _read_yaml(path)
    names = _names(path, content.get("names"))
    left_out = LeftOut()
    images = Images(root, left_out)
    subsets: Subsets = {}
    taken: set[str] = set()
    lists: set[str] = set()
    for part in _PARTS:
        if part != "train" and content.get(part) == content.get("train"):
            left_out.add("parts that are the training images again", part)
            continue
        for image in _images_of(root, path, content, part, images, lists):
            if image in taken:
                raise ValueError(f"{path} has {image} in two parts: name it in one")
            taken.add(image)
            subsets.setdefault(part, {})[image] = _drawing(root, image, names, left_out)
    for image in images.all:
        if image not in taken:
            left_out.add("images that are in no part of the YAML file", image)
    known = {_label_file(image) for image in images.all}
    labels = {name for name, _ in walk(root, "", LeftOut()) if _is_label(name)}
    for name in sorted(labels - known):
        left_out.add("labels of images that are not there", name)
    images.tell_unread({path.name, *lists, *known, *labels})
    return drawn_source(
        "ultralytics", root, subsets, settings, left_out, classes=names, smallest_on_top=True
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{path} is no YAML ({reason}): correct it") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is {shown(value)}, not names and values: correct it")
    return value


def _names(path: Path, value: Any) -> list[str]:
    rows = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(rows, dict) or sorted(rows, key=str) != sorted(range(len(rows)), key=str):
        raise ValueError(f"{path} has the names {shown(value)}: number the classes from 0")
    names = [rows[i] for i in range(len(rows))]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} has the names {shown(value)}: put each into quotation marks")
    return names


def _images_of(
    root: Path, path: Path, content: dict[str, Any], part: str, images: Images, lists: set[str]
) -> Iterator[str]:
    """Yield the images of a part: of folders, or of lists of files, below the root; `lists`
    receives the latter.

    Folders are named from `path`, which may be another machine's: the longest end of a name that is
    below the root counts.
    """
    given = content.get(part) or ()
    words = list(given) if isinstance(given, list | tuple) else [given]
    for word in words:
        if not isinstance(word, str):
            raise ValueError(f"{path} has {shown(word)} in {part}, which is no folder: correct it")
        below = _below(root, word, path)
        if (root / below).is_dir():
            yield from (n for n in images.all if PurePosixPath(n).is_relative_to(below))
            continue
        lists.add(below)
        for line in read_text(root / below).splitlines():
            if line.strip():
                folders = ["", PurePosixPath(below).parent.as_posix()]
                yield images.find(line.strip(), folders, below)


def _below(root: Path, word: str, path: Path) -> str:
    parts = [part for part in clean(word, str(path)) if part != ".."]
    for start in range(len(parts)):
        below = PurePosixPath(*parts[start:])
        if (root / below).exists():
            return below.as_posix()
    raise FileNotFoundError(f"{path} names {shown(word)}, which is not below {root}: correct it")


def _is_label(name: str) -> bool:
    return name.endswith(".txt") and "labels" in PurePosixPath(name).parts


def _label_file(image: str) -> str:
    """Return where an image's labels lie: labels/ in place of the last images/."""
    parts = list(PurePosixPath(image).with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return PurePosixPath(*parts).as_posix()


def _drawing(root: Path, image: str, names: list[str], left_out: LeftOut) -> Drawing | None:
    file = _label_file(image)
    if not os.path.isfile(root / file):
        return None
    picture = upright(
        open_image(read_file(root / image), str(root / image), load=False), str(root / image)
    )
    size = (picture.height, picture.width)
    regions = []
    for number, line in enumerate(read_text(root / file).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            label, ring = _line(words, names, size)
        except ValueError as error:
            reason = error.reason if isinstance(error, Wrong) else f"is {shown(line)} ({error})"
            raise ValueError(f"{root / file} line {number} {reason}: correct it") from None
        if ring is None:
            left_out.add("boxes, which are no outlines", file)
        else:
            regions.append(Region(label, (Polygon((ring,)),)))
    return Drawing(file, tuple(regions), size)


def _line(
    words: list[str], names: list[str], size: tuple[int, int]
) -> tuple[str, np.ndarray | None]:
    if not words[0].isdecimal() or int(words[0][:9]) >= len(names):
        raise Wrong(f"is of the class {shown(words[0])}, and there are 0 to {len(names) - 1}")
    label = names[int(words[0])]
    if len(words) == 5:
        return label, None
    if len(words) < 7:
        raise Wrong("has fewer than three points")
    return label, flat_ring([float(word) for word in words[1:]]) * size[::-1]
