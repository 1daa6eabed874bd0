"""COCO-Stuff: COCO's images with maps of things and stuff (Caesar, Uijlings, Ferrari 2018).

ROOT/train2017/, val2017/                    images, or below images/
ROOT/stuffthingmaps/train2017/, val2017/     maps, PNG; or below annotations/, or
                                             stuffthingmaps_trainval2017/, as the archive is called
ROOT/unlabeled2017/                          images without maps, perhaps

A map's value is a label less 1: 91 things, 11 of which no image shows, and 91 stuff classes; 255 is
unlabeled there, which is IGNORE here. So 171 classes are left, in the order of their labels, as
mmsegmentation's `coco_stuff164k` has them. As 81 classes they are background and the 80 things:
all that is no thing is background, pixels of 255 too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ... import IGNORE
from ..masks.palette import palette_of
from ..masks.values import MaskValues
from ..outside.files import LeftOut
from ..registry import SOURCES
from ..source import Entry, Source, list_images, pair_with_masks, unread

SUBSETS = {"train": "train2017", "val": "val2017"}
IMAGES, MAPS = ("", "images/"), ("stuffthingmaps", "stuffthingmaps_trainval2017", "annotations")
THINGS = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant "
    "- stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe "
    "- backpack umbrella - - handbag tie suitcase frisbee skis snowboard sports_ball kite "
    "baseball_bat baseball_glove skateboard surfboard tennis_racket bottle - wine_glass cup fork "
    "knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair "
    "couch potted_plant bed - dining_table - - toilet - tv laptop mouse remote keyboard "
    "cell_phone microwave oven toaster sink refrigerator - book clock vase scissors teddy_bear "
    "hair_drier toothbrush -"
)
"""Labels 1 to 91; a dash is one that no image shows."""
STUFF = (
    "banner blanket branch bridge building-other bush cabinet cage cardboard carpet ceiling-other "
    "ceiling-tile cloth clothes clouds counter cupboard curtain desk-stuff dirt door-stuff fence "
    "floor-marble floor-other floor-stone floor-tile floor-wood flower fog food-other fruit "
    "furniture-other grass gravel ground-other hill house leaves light mat metal mirror-stuff moss "
    "mountain mud napkin net paper pavement pillow plant-other plastic platform playingfield "
    "railing railroad river road rock roof rug salad sand sea shelf sky-other skyscraper snow "
    "solid-other stairs stone straw structural-other table tent textile-other towel tree vegetable "
    "wall-brick wall-concrete wall-other wall-panel wall-stone wall-tile wall-wood water-other "
    "waterdrops window-blind window-other wood"
)
"""Labels 92 to 182."""
BACKGROUND = "background"


@dataclass(frozen=True, kw_only=True)
class CocoStuffSettings:
    """Which classes are taken."""

    classes: Literal["171", "81"] = "171"
    """171: things and stuff; 81: background and the 80 things."""


@SOURCES.register("coco-stuff")
def load_coco_stuff(root: Path, settings: CocoStuffSettings) -> Source:
    """List COCO-Stuff: train2017/ and val2017/, stuffthingmaps/train2017 and val2017."""
    folder = next((name for name in MAPS if (root / name / SUBSETS["train"]).is_dir()), None)
    if folder is None:
        raise FileNotFoundError(
            f"{root} has no maps in {' or '.join(f'{name}/train2017' for name in MAPS)}: unpack "
            "stuffthingmaps_trainval2017.zip there"
        )
    left_out = LeftOut()
    subsets: dict[str, list[Entry]] = {}
    for subset, name in SUBSETS.items():
        if subset == "train" or (root / folder / name).is_dir():
            place = _images(root, name)
            images = list_images(root, place, left_out)
            maps = f"{folder}/{name}"
            subsets[subset] = pair_with_masks(root, images, place, maps, left_out=left_out)
    others = _images(root, "unlabeled2017")
    if (root / others).is_dir():
        images = list_images(root, others, left_out)
        subsets["unlabeled"] = [Entry(name=image, image=image) for image in images]
    left_out.join(unread(root, {"images", folder, *SUBSETS.values(), "unlabeled2017"}))
    names, values = classes_of(settings.classes)
    return Source(
        kind="coco-stuff",
        root=root,
        classes=names,
        palette=palette_of(names),
        subsets=subsets,
        values=MaskValues(values),
        left_out=left_out,
    )


def classes_of(kind: str) -> tuple[tuple[str, ...], dict[int, int]]:
    """Return the names of the "171" or "81" classes, and what the values of maps mean."""
    things = [word.replace("_", " ") for word in THINGS.split()]
    labels = [*things, *STUFF.split()]
    if kind == "171":
        shown = [value for value, name in enumerate(labels) if name != "-"]
        ids = {value: id_ for id_, value in enumerate(shown)}
        return tuple(labels[value] for value in shown), {**ids, IGNORE: IGNORE}
    shown = [value for value, name in enumerate(things) if name != "-"]
    ids = dict.fromkeys([*range(len(labels)), IGNORE], 0)
    ids |= {value: id_ for id_, value in enumerate(shown, 1)}
    return (BACKGROUND, *(things[value] for value in shown)), ids


def _images(root: Path, name: str) -> str:
    return next((f"{b}{name}" for b in IMAGES if (root / f"{b}{name}").is_dir()), name)
