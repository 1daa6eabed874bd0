"""CamVid as the SegNet tutorial ships it: train/, trainannot/, val/, valannot/.

test/ and testannot/ may be there as well. Masks hold ids 0 to 10; 11 is void and becomes IGNORE.
"""

from pathlib import Path

from ..masks.values import id_values
from ..outside.files import LeftOut
from ..registry import SOURCES
from ..source import Source, list_images, pair_with_masks, unread

VOID = 11
CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}


@SOURCES.register("camvid")
def load_camvid(root: Path) -> Source:
    """List CamVid as the SegNet tutorial ships it: train/, trainannot/, val/, valannot/.

    Subsets are train, val and, where there is one, test.
    """
    subsets, left_out = {}, LeftOut()
    for subset in ("train", "val", "test"):
        if subset == "test" and not (root / "test").is_dir():
            continue
        images, masks = list_images(root, subset, left_out), f"{subset}annot"
        subsets[subset] = pair_with_masks(root, images, subset, masks, left_out=left_out)
    left_out.join(unread(root, {*subsets, *(f"{subset}annot" for subset in subsets)}))
    return Source(
        kind="camvid",
        root=root,
        classes=tuple(CLASSES),
        palette=tuple(CLASSES.values()),
        subsets=subsets,
        values=id_values(len(CLASSES), ignored=[VOID]),
        left_out=left_out,
    )
