"""PASCAL VOC 2012 segmentation, with or without the further masks of SBD.

    VOCdevkit/VOC2012/JPEGImages/ID.jpg
    VOCdevkit/VOC2012/SegmentationClass/ID.png         1464 + 1449 palette masks, by index
    VOCdevkit/VOC2012/SegmentationClassAug/ID.png      grey masks of VOC and SBD together, or
    benchmark_RELEASE/dataset/cls/ID.mat               SBD itself (needs SciPy)
    VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt

Which masks train is part of a protocol, so the manifest records it; the group `fine` names the
images whose masks are VOC's own.
"""

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ... import IGNORE
from ...plain import shown
from ..images import first_line
from ..masks.palette import default_palette
from ..masks.values import MaskValues, id_values
from ..outside.encoded import IMAGE_SUFFIXES
from ..outside.files import LeftOut, normal, read_file
from ..outside.text import read_text
from ..registry import SOURCES
from ..source import Entry, Source
from ..splits.lists import plain_id

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
BORDER = (224, 224, 192)
"""Colour of the ignored pixels between objects."""
AUGMENTED_LISTS = ("trainaug.txt", "train_aug.txt")


@dataclass(frozen=True, kw_only=True)
class VocSettings:
    """Which images and masks of VOC 2012 are converted."""

    sbd: Path | None = None
    """Folder of SBD (benchmark_RELEASE, or its dataset): the masks cls/*.mat join VOC's own."""
    train_masks: str = "auto"
    """Folder of the training masks; auto is SegmentationClassAug where it is, if not --sbd."""
    val_masks: str = "SegmentationClass"
    """Folder of the validation masks."""
    images: Literal["auto", "train", "aug"] = "auto"
    """Training images: train is the 1464 of train.txt, aug all with masks but those of val.txt;
    auto is aug where there are masks of SBD."""
    rest: bool = False
    """Convert all other images but val's without masks, as unlabeled."""


class VocSource(Source):
    """VOC's files; masks may be SBD's .mat files."""

    def read(self, entry: Entry) -> tuple[bytes | np.ndarray, np.ndarray | None]:
        """Return an image's file and its class ids, uint8 (H, W); see Source.read."""
        if entry.mask is None or not entry.mask.endswith(".mat"):
            return super().read(entry)
        path = self.root / entry.mask
        return read_file(self.root / entry.image), self.values.map(read_sbd(path), str(path))


@SOURCES.register("voc")
def load_voc(root: Path, settings: VocSettings) -> Source:
    """List PASCAL VOC 2012, with SBD's masks where they are; VOCdevkit/VOC2012 lies in ROOT.

    Subsets are train, val and, where asked for, unlabeled.

    Raises FileNotFoundError or ValueError for a missing folder, list, image or mask.
    """
    root = _find_root(root)
    fine, val = _read_ids(root, "train.txt"), _read_ids(root, "val.txt")
    sbd = None if settings.sbd is None else _find_sbd(settings.sbd)
    folder = settings.train_masks
    if folder == "auto":
        aug = sbd is None and (root / "SegmentationClassAug").is_dir()
        folder = "SegmentationClassAug" if aug else "SegmentationClass"
    extended = sbd is not None or folder != "SegmentationClass"
    ids = fine
    if settings.images == "aug" or (settings.images == "auto" and extended):
        ids = _augmented(root, folder, sbd, set(fine), set(val))
    masks = {id_: f"{folder}/{id_}.png" for id_ in ids}
    if sbd is not None:
        masks |= {id_: str(sbd / f"{id_}.mat") for id_ in ids if id_ not in set(fine)}
    subsets = {
        "train": _entries(root, masks),
        "val": _entries(root, {id_: f"{settings.val_masks}/{id_}.png" for id_ in val}),
    }
    left_out = LeftOut()
    rest = _rest(root, {*ids, *val}, left_out)
    if settings.rest:
        subsets["unlabeled"] = [Entry(name=name, image=name) for name in rest]
    elif rest:
        left_out.add("images that no list names (--rest takes them)", rest[0], len(rest))
    chosen = set(ids)
    return VocSource(
        kind="voc",
        root=root,
        classes=CLASSES,
        palette=default_palette(len(CLASSES)),
        subsets=subsets,
        values=mask_values(),
        settings={
            "train_masks": folder if sbd is None else f"{folder}+SBD",
            "val_masks": settings.val_masks,
        },
        groups={"fine": tuple(f"JPEGImages/{id_}.jpg" for id_ in fine if id_ in chosen)},
        left_out=left_out,
    )


def mask_values() -> MaskValues:
    """Masks hold ids, or show VOC's colours: by index, as grey levels, or as RGB pictures."""
    palette = default_palette(len(CLASSES))
    values = id_values(len(CLASSES), palette=palette, either=True)
    values.colours[BORDER] = IGNORE
    return values


def _rest(root: Path, known: set[str], left_out: LeftOut) -> list[str]:
    """Return the images that are in no list; count what is no JPEG."""
    rest = []
    for path in sorted((root / "JPEGImages").iterdir()):
        name = f"JPEGImages/{path.name}"
        if path.name.startswith(".") or not path.is_file():
            left_out.add("hidden files, folders, pipes and devices", name)
        elif path.suffix != ".jpg":
            read = path.suffix.lower() in IMAGE_SUFFIXES
            left_out.add("images not named .jpg" if read else "files that are no images", name)
        elif path.stem not in known:
            rest.append(name)
    return rest


def read_sbd(path: Path) -> np.ndarray:
    """Read the class ids of one of SBD's .mat files, uint8 (H, W).

    Raises RuntimeError where SciPy is not installed and ValueError for a damaged file.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise RuntimeError("SBD's .mat files need SciPy: pip install scipy") from None
    data = io.BytesIO(read_file(path))
    try:
        return np.asarray(loadmat(data)["GTcls"][0]["Segmentation"][0])
    except Exception as error:  # SciPy raises many kinds for a damaged file
        raise ValueError(
            f"{path} is no mask of SBD ({first_line(error)}): fetch it again"
        ) from error


def _find_root(root: Path) -> Path:
    for folder in (root / "VOCdevkit" / "VOC2012", root / "VOC2012", root):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise FileNotFoundError(
        f"{root} holds no VOCdevkit/VOC2012/JPEGImages: give the folder above it"
    )


def _find_sbd(root: Path) -> Path:
    for folder in (root / "benchmark_RELEASE" / "dataset" / "cls", root / "dataset" / "cls"):
        if folder.is_dir():
            return folder.resolve()
    if (root / "cls").is_dir():
        return (root / "cls").resolve()
    raise FileNotFoundError(f"{root} holds no dataset/cls with SBD's .mat files: correct --sbd")


def _read_ids(root: Path, name: str) -> list[str]:
    path = root / "ImageSets" / "Segmentation" / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: fetch VOC 2012's ImageSets")
    ids = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        # A line is an id, or the paths of an image and its mask, as DeepLab's lists have them.
        names = {normal(plain_id(word)).rpartition("/")[2] for word in line.split()}
        if len(names) > 1:
            raise ValueError(
                f"{path} line {number} is {shown(line)}, neither an id nor an image and its mask: "
                "correct the list"
            )
        ids += names
    twice = next((id_ for id_, count in Counter(ids).items() if count > 1), None)
    if twice is not None or not ids:
        fault = "is empty" if twice is None else f"names {shown(twice)} twice"
        raise ValueError(f"{path} {fault}: correct the list")
    return ids


def _augmented(
    root: Path, folder: str, sbd: Path | None, fine: set[str], val: set[str]
) -> list[str]:
    """Return the ids of all images that have a training mask, those of val left out."""
    for name in AUGMENTED_LISTS:
        if (root / "ImageSets" / "Segmentation" / name).is_file():
            return sorted(set(_read_ids(root, name)) - val)
    if sbd is not None:
        return sorted((fine | {path.stem for path in sbd.glob("*.mat")}) - val)
    return sorted({path.stem for path in (root / folder).glob("*.png")} - val)


def _entries(root: Path, masks: dict[str, str]) -> list[Entry]:
    """Make entries of id -> mask path. Raises FileNotFoundError for what is missing."""
    entries = [
        Entry(name=f"JPEGImages/{id_}.jpg", image=f"JPEGImages/{id_}.jpg", mask=mask)
        for id_, mask in masks.items()
    ]
    for entry in entries:
        for part in (entry.image, entry.mask or entry.image):
            if not (root / part).is_file():
                raise FileNotFoundError(
                    f"{root / part} is missing though it is listed: fetch it, or correct the list"
                )
    return entries
