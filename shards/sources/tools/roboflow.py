"""Roboflow's semantic segmentation masks: images and masks in one folder for each part.

ROOT/train/a.jpg       ROOT/train/a_mask.png      ROOT/train/_classes.csv: Pixel Value, Class
"""

import csv
from pathlib import Path

from .... import IGNORE
from ....plain import shown
from ...labeling.drawn import HeldOut, held_out
from ...labeling.finding import PARTS
from ...masks.palette import palette_of
from ...masks.values import MaskValues
from ...outside.files import UNREAD, LeftOut, walk, walk_images
from ...outside.text import read_text
from ...registry import SOURCES
from ...source import Entry, Source

_MASK, _CLASSES = "_mask.png", "_classes.csv"


def find_roboflow(root: Path) -> list[Path]:
    """Return the files of classes of a root and of the folders in it."""
    return sorted((*root.glob("_classes.csv"), *root.glob("*/_classes.csv")))


@SOURCES.register("roboflow")
def load_roboflow(root: Path, settings: HeldOut) -> Source:
    """List Roboflow's semantic segmentation: train/, valid/, test/ with NAME_mask.png each.

    Values are those of _classes.csv; images without a mask are unlabeled. Roboflow's other exports
    are read as what they are: coco, ultralytics.
    """
    files = find_roboflow(root)
    if not files:
        raise FileNotFoundError(
            f"{root} has no _classes.csv in train/: export as Semantic Segmentation Masks, or "
            "convert Roboflow's COCO as coco and its YOLO as ultralytics"
        )
    values = _read_classes(files[0])
    left_out = LeftOut()
    subsets: dict[str, list[Entry]] = {}
    for file in files:
        if _read_classes(file) != values:
            raise ValueError(f"{file} and {files[0]} name other classes: export the parts together")
        folder = file.parent.relative_to(root).as_posix()
        _add_part(root, "" if folder == "." else folder, subsets, left_out)
    names = tuple(values.values())
    return Source(
        kind="roboflow",
        root=root,
        classes=names,
        palette=palette_of(names),
        subsets=held_out(root, subsets, settings.val),
        values=MaskValues({IGNORE: IGNORE} | {value: i for i, value in enumerate(values)}),
        left_out=left_out,
    )


def _add_part(root: Path, folder: str, subsets: dict[str, list[Entry]], left_out: LeftOut) -> None:
    found = LeftOut()
    files = set(walk_images(root, folder, found))
    found.reasons.pop(UNREAD, None)  # the classes are among them
    left_out.join(found)
    for name, _ in walk(root, folder, LeftOut()):
        if name not in files and not name.endswith(_CLASSES):
            left_out.add(UNREAD, name)
    masks = {file for file in files if file.endswith(_MASK)}
    unpaired = set(masks)
    for image in sorted(files):
        if image in masks:
            continue
        mask = f"{Path(image).with_suffix('').as_posix()}{_MASK}"
        there = mask in masks
        subset = PARTS.get(folder.lower(), "train") if there else "unlabeled"
        entry = Entry(name=image, image=image, mask=mask if there else None)
        subsets.setdefault(subset, []).append(entry)
        unpaired.discard(mask)
    for mask in sorted(unpaired):
        left_out.add("masks without an image", mask)


def _read_classes(path: Path) -> dict[int, str]:
    """Return the name of each pixel value, by value."""
    found: dict[int, str] = {}
    try:
        rows = list(csv.reader(read_text(path).splitlines()))
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV ({error}): export it again") from None
    for row in rows[1:]:
        if not row:
            continue
        words = [word.strip() for word in row]
        if len(words) != 2 or not words[0].isdecimal() or int(words[0][:9]) > 254:
            raise ValueError(f"{path} has the line {shown(','.join(row))}: write `value, class`")
        if int(words[0]) in found or words[1] in found.values():
            raise ValueError(f"{path} has {shown(words[1])} or its value twice: correct it")
        found[int(words[0])] = words[1]
    return dict(sorted(found.items()))
