"""The layout of a folder recognised, so that nobody need know what a tool calls its export."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..labeling.coco_files import find_coco
from ..labeling.drawn import DrawnSettings
from ..outside.files import LeftOut, walk
from ..registry import SOURCES, loader_arguments
from ..source import Source
from .ade20k import INFORMATION
from .coco_stuff import MAPS, SUBSETS
from .tools.cvat import find_cvat
from .tools.huggingface import find_huggingface
from .tools.label_studio import find_label_studio
from .tools.labelmap import find_labelmap
from .tools.labelme import find_labelme
from .tools.mmseg import find_mmseg
from .tools.roboflow import find_roboflow
from .tools.supervisely import find_supervisely
from .tools.ultralytics import find_ultralytics

PLAIN = """\
    ROOT/
      classes.txt          one class a line, in the order of the ids
      images/a.jpg ...     images, and
      masks/a.png ...      masks of the same names: class ids, 255 where nothing counts
      val/images, val/masks    images to score on, or none
      unlabeled/b.jpg ...      images without masks, or none"""


def _is_voc(root: Path) -> bool:
    lists = "ImageSets/Segmentation"
    return any((root / f / lists).is_dir() for f in ("VOCdevkit/VOC2012", "VOC2012", "."))


def _is_ade20k(root: Path) -> bool:
    return (root / INFORMATION).is_file() and (root / "annotations" / "training").is_dir()


def _is_coco_stuff(root: Path) -> bool:
    return any((root / name / SUBSETS["train"]).is_dir() for name in MAPS[:2])


LAYOUTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "labelmap": (find_labelmap, "labelmap.txt, JPEGImages/, SegmentationClass/"),
    "voc": (_is_voc, "VOCdevkit/VOC2012 with ImageSets/Segmentation/"),
    "cityscapes": (lambda root: (root / "leftImg8bit").is_dir(), "leftImg8bit/, gtFine/"),
    "camvid": (lambda root: (root / "trainannot").is_dir(), "train/, trainannot/, val/, valannot/"),
    "supervisely": (find_supervisely, "meta.json, NAME/img/, NAME/ann/"),
    "roboflow": (find_roboflow, "train/a.jpg, train/a_mask.png, train/_classes.csv"),
    "ultralytics": (find_ultralytics, "a YAML file with names and train, images/, labels/"),
    "ade20k": (_is_ade20k, "images/training, annotations/training, objectInfo150.txt"),
    "coco-stuff": (_is_coco_stuff, "train2017/, stuffthingmaps/train2017/"),
    "mmseg": (find_mmseg, "img_dir/train and ann_dir/train, or images/training and annotations/"),
    "folder": (
        lambda root: (root / "masks").is_dir() and (root / "images").is_dir(),
        "images/, masks/, classes.txt",
    ),
    "cvat": (find_cvat, "annotations.xml (CVAT for images 1.1)"),
    "label-studio": (find_label_studio, "JSON with tasks: data, annotations, result"),
    "labelme": (find_labelme, "a JSON file with shapes for each image"),
    "coco": (find_coco, "JSON with images, annotations and categories"),
    "huggingface": (find_huggingface, "metadata.jsonl, metadata.csv or parquet files"),
}
"""How each layout is known, the clearest first, and how it is told to a user."""


OWN_FILES = ("ultralytics", "cvat", "label-studio", "labelme", "coco", "huggingface")
"""Layouts that are known by files of which no other one has the like."""


@dataclass(frozen=True, kw_only=True)
class AutoSettings(DrawnSettings):
    """Options of all the layouts; one that the layout found does not have is refused."""


@SOURCES.register("auto")
def load_auto(root: Path, settings: AutoSettings) -> Source:
    """Recognise what is in ROOT: what labelling tools export, or one's own folders.

    An option that the layout does not have is refused. The name of each layout forces it.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder, or does not exist")
    name = recognise(root)
    takes_root, kind = loader_arguments(SOURCES.find(name))
    assert takes_root
    chosen = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) != field.default
    }
    taken = {field.name for field in dataclasses.fields(kind)} if kind else set()
    strange = next((option for option in chosen if option not in taken), None)
    if strange is not None:
        raise ValueError(f"{root} is {name}, which has no option --{strange.replace('_', '-')}")
    source = SOURCES.find(name)(root, *((kind(**chosen),) if kind else ()))
    for other in others_of(root, name):
        source.left_out.add(
            f"layouts beside {name}, as which all was read (to read one, name it in place of auto)",
            other,
        )
    return source


def others_of(root: Path, name: str) -> list[str]:
    """Return the layouts after `name` that a tool's files in a folder are of, too."""
    later = list(LAYOUTS)[list(LAYOUTS).index(name) + 1 :]
    return [other for other in later if other in OWN_FILES and LAYOUTS[other][0](root)]


class UnknownLayout(ValueError):
    """A folder that no source is for; `details`, of many lines, say what the layouts are."""

    details = ""


def recognise(root: Path) -> str:
    """Return the name of the source that a folder is for.

    Raises UnknownLayout, with what is there and what is known, where there is none.
    """
    for name, (fits, _) in LAYOUTS.items():
        if fits(root):
            return name
    known = "\n".join(f"    {name:<13}{told}" for name, (_, told) in LAYOUTS.items())
    error = UnknownLayout(
        f"{root} has none of the layouts above (it holds {_found(root)}): bring it into one of "
        "them, or name its source in place of auto"
    )
    error.details = f"layouts that are known:\n{known}\nthe plain one, folder:\n{PLAIN}"
    raise error


def _found(root: Path) -> str:
    folders = sorted(path.name for path in root.iterdir() if path.is_dir())
    kinds = Counter(
        os.path.splitext(name)[1].lower() or "no suffix" for name, _ in walk(root, "", LeftOut())
    )
    files = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(6))
    shown = ", ".join(f"{name}/" for name in folders[:8])
    return f"{shown or 'no folders'}; {files or 'no files'}"
