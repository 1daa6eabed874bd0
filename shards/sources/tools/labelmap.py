"""Folders in VOC's form with a labelmap.txt, as CVAT (segmentation mask 1.1) and Datumaro export.

ROOT/labelmap.txt                      `name:R,G,B:parts:actions` a line
ROOT/JPEGImages/a.jpg                  images; those without a mask are unlabeled
ROOT/SegmentationClass/a.png           masks in these colours
ROOT/ImageSets/Segmentation/train.txt  names of a part; default.txt is train
"""

from dataclasses import dataclass
from pathlib import Path

from .... import IGNORE
from ....plain import shown
from ...labeling.drawn import IGNORED, HeldOut, held_out
from ...labeling.finding import subset_named
from ...masks.values import MaskValues
from ...outside.files import normal, walk_images
from ...outside.text import read_text
from ...registry import SOURCES
from ...source import Entry, Source, unread

_IMAGES, _MASKS, _LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
_ALL = ("trainval", "default", "all")
_READ = ("JPEGImages", "SegmentationClass", "ImageSets", "SegmentationObject")


@dataclass(frozen=True, kw_only=True)
class LabelmapSettings(HeldOut):
    """What is scored on where the lists do not say it."""


def find_labelmap(root: Path) -> Path | None:
    """Return the labelmap.txt of a folder, where there is one and masks beside it."""
    file = root / "labelmap.txt"
    return file if file.is_file() and (root / _MASKS).is_dir() else None


@SOURCES.register("labelmap")
def load_labelmap(root: Path, settings: LabelmapSettings) -> Source:
    """List VOC-style folders with labelmap.txt: JPEGImages/, SegmentationClass/, ImageSets/.

    Masks are read by the colours of labelmap.txt, whose labels ignore, void and unlabeled belong to
    no class. Images that no mask is of are unlabeled.
    """
    if find_labelmap(root) is None:
        raise FileNotFoundError(f"{root} has no labelmap.txt beside {_MASKS}/")
    if not (root / _IMAGES).is_dir():
        raise FileNotFoundError(
            f"{root / _IMAGES} is missing: export with images, or copy them there"
        )
    names, colours, ignored = _read_labelmap(root / "labelmap.txt")
    left_out = unread(root, _READ)
    images = _by_stem(root, walk_images(root, _IMAGES, left_out), _IMAGES)
    masks = _by_stem(root, walk_images(root, _MASKS, left_out), _MASKS)
    listed = _lists(root, images)
    subsets: dict[str, list[Entry]] = {}
    for stem, image in images.items():
        mask = masks.pop(stem, None)
        if mask and listed and stem not in listed:
            left_out.add(f"images with a mask that no list of {_LISTS} names", image)
            continue
        subset = listed.get(stem, "train") if mask else "unlabeled"
        subsets.setdefault(subset, []).append(Entry(name=image, image=image, mask=mask))
    for mask in masks.values():
        left_out.add("masks without an image", mask)
    meanings = dict.fromkeys(ignored, IGNORE) | {c: i for i, c in enumerate(colours)}
    return Source(
        kind="labelmap",
        root=root,
        classes=tuple(names),
        palette=tuple(colours),
        subsets=held_out(root, subsets, settings.val),
        values=MaskValues(colours=meanings),
        left_out=left_out,
    )


Colour = tuple[int, int, int]


def _read_labelmap(path: Path) -> tuple[list[str], list[Colour], list[Colour]]:
    names: list[str] = []
    colours: list[Colour] = []
    ignored: list[Colour] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        words = rest.split(":")[0].split(",")
        if len(words) != 3 or not all(w.strip().isdecimal() and int(w) < 256 for w in words):
            raise ValueError(f"{path} line {number} is {shown(line)}: write `name:R,G,B::`")
        red, green, blue = (int(word) for word in words)
        if (red, green, blue) in (*colours, *ignored) or name in names:
            raise ValueError(f"{path} line {number} repeats a name or a colour: correct it")
        if name.lower() in IGNORED:
            ignored.append((red, green, blue))
        else:
            names.append(name)
            colours.append((red, green, blue))
    return names, colours, ignored


def _by_stem(root: Path, files: list[str], folder: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in files:
        stem = normal(Path(file).relative_to(folder).with_suffix("").as_posix())
        if stem in found:
            raise ValueError(f"{root / found[stem]} and {root / file} have one name: remove one")
        found[stem] = file
    return found


def _lists(root: Path, images: dict[str, str]) -> dict[str, str]:
    """Return the subset of each image that a list names."""
    folder = root / _LISTS
    found: dict[str, str] = {}
    lists = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    # Lists of parts first: one of all images says nothing more.
    for path in sorted(lists, key=lambda path: path.stem in _ALL):
        subset = subset_named([path.stem], "train")
        for line in read_text(path).splitlines():
            name = normal(line.strip())
            if not name:
                continue
            if name not in images:
                raise FileNotFoundError(
                    f"{path} names {shown(name)}, which is not in {root / _IMAGES}: add the image, "
                    "or remove the line"
                )
            other = found.setdefault(name, subset)
            if other != subset and path.stem not in _ALL:
                raise ValueError(f"{path} names {name}, which is in {other}, too: correct one list")
    return found
