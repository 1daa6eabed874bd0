"""Cityscapes: leftImg8bit/ and gtFine/, perhaps train_extra, unlabeled or with coarse masks.

    leftImg8bit/{train,val,train_extra}/CITY/CITY_000000_000019_leftImg8bit.png
    gtFine/{train,val}/CITY/CITY_000000_000019_gtFine_labelIds.png      or _labelTrainIds.png
    gtCoarse/train_extra/CITY/CITY_000000_000019_gtCoarse_labelIds.png  or _labelTrainIds.png

Raw label ids become the 19 train ids; all other labels become IGNORE.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ... import IGNORE
from ..images import open_image
from ..masks.values import MaskValues, id_values
from ..outside.files import LeftOut, read_file
from ..registry import SOURCES
from ..source import Entry, Source, list_images, unread

CLASSES = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
"""Class name -> raw label id and colour, in the order of the train ids."""
LAST_RAW_ID = 33
Labels = Literal["auto", "labelIds", "labelTrainIds"]


@dataclass(frozen=True, kw_only=True)
class CityscapesSettings:
    """Which images and masks of Cityscapes are converted."""

    labels: Labels = "auto"
    """Mask files: raw labelIds or labelTrainIds; auto takes labelIds where they are."""
    coarse: Literal["no", "images", "labels"] = "no"
    """What becomes of train_extra. images: unlabeled images, without masks; labels: more training
    images, with their coarse masks."""
    half: bool = False
    """Halve height and width, as the half-resolution experiments do."""


@SOURCES.register("cityscapes")
def load_cityscapes(root: Path, settings: CityscapesSettings) -> Source:
    """List Cityscapes (leftImg8bit/, gtFine/), raw label ids as the 19 train ids.

    Subsets are train, val and, where asked for, unlabeled.
    """
    labels = _find_labels(root) if settings.labels == "auto" else settings.labels
    left_out = LeftOut()
    subsets = {subset: _pairs(root, subset, labels, left_out) for subset in ("train", "val")}
    if settings.coarse == "labels":
        subsets["train"] += _pairs(root, "train_extra", labels, left_out, "gtCoarse")
    if settings.coarse == "images":
        images = list_images(root, "leftImg8bit/train_extra", left_out)
        subsets["unlabeled"] = [Entry(name=image, image=image) for image in images]
    read = {"train", "val"} if settings.coarse == "no" else {"train", "val", "train_extra"}
    left_out.join(unread(root, read, "leftImg8bit/"))
    source = Source(
        kind="cityscapes",
        root=root,
        classes=tuple(CLASSES),
        palette=tuple(colour for _, colour in CLASSES.values()),
        subsets=subsets,
        values=raw_id_values() if labels == "labelIds" else id_values(len(CLASSES)),
        settings={"labels": labels},
        left_out=left_out,
    )
    if settings.half:
        source.size = half_size(source)
    return source


def raw_id_values() -> MaskValues:
    """Map raw label ids to train ids; what is not scored becomes IGNORE."""
    ids = dict.fromkeys([*range(LAST_RAW_ID + 1), IGNORE], IGNORE)
    return MaskValues(ids | {raw: i for i, (raw, _) in enumerate(CLASSES.values())})


def half_size(source: Source) -> tuple[int, int]:
    """Return half the (height, width) of the first training image, in pixels."""
    path = source.root / source.subsets["train"][0].image
    image = open_image(read_file(path), str(path))
    return image.height // 2, image.width // 2


def _find_labels(root: Path) -> Labels:
    found = next((root / "gtFine" / "train").glob("*/*_labelIds.png"), None)
    return "labelTrainIds" if found is None else "labelIds"


def _pairs(
    root: Path, subset: str, labels: Labels, left_out: LeftOut, kind: str = "gtFine"
) -> list[Entry]:
    entries, ending = [], f"_{kind}_{labels}.png"
    for image in list_images(root, f"leftImg8bit/{subset}", left_out):
        stem = Path(image).stem.removesuffix("_leftImg8bit")
        city = Path(image).parent.name
        mask = f"{kind}/{subset}/{city}/{stem}{ending}"
        if not (root / mask).is_file():
            raise FileNotFoundError(
                f"{root / image} has no mask {root / mask}: fetch {kind}, or make the masks with "
                "cityscapesscripts"
            )
        entries.append(Entry(name=image, image=image, mask=mask))
    used = {entry.mask for entry in entries}
    if len(used) < len(entries):
        raise ValueError(
            f"{root}/leftImg8bit/{subset} holds two images for one mask: remove one of them"
        )
    for path in sorted((root / kind / subset).glob(f"*/*{ending}")):
        if path.relative_to(root).as_posix() not in used:
            left_out.add("masks without an image", path.relative_to(root).as_posix())
    return entries
