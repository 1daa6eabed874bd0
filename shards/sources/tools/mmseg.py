"""Folders as mmsegmentation has them: img_dir/ and ann_dir/, or images/training.

ROOT/img_dir/train/a.jpg         ROOT/ann_dir/train/a.png
ROOT/images/training/a.jpg       ROOT/annotations/training/a.png
ROOT/classes.txt                 one class a line, or --names
"""

from pathlib import Path

from ...labeling.drawn import held_out
from ...labeling.finding import PARTS
from ...labeling.mask_files import CLASS_FILES, MaskFileSettings, classes_of, paired
from ...masks.palette import palette_of
from ...outside.files import walk_images
from ...registry import SOURCES
from ...source import Entry, Source, unread

LAYOUTS = (("img_dir", "ann_dir"), ("images", "annotations"), ("images", "masks"))
"""Folders of images and of masks, each with a folder for a part."""


def find_mmseg(root: Path) -> tuple[str, str] | None:
    """Return the folders of images and masks of a root that has a part in both."""
    for images, masks in LAYOUTS:
        if any((root / images / p).is_dir() and (root / masks / p).is_dir() for p in PARTS):
            return images, masks
    return None


@SOURCES.register("mmseg")
def load_mmseg(root: Path, settings: MaskFileSettings) -> Source:
    """List folders as mmsegmentation has them: img_dir/ and ann_dir/, or images/training.

    Masks hold class ids, 255 is ignored; the classes' names are in classes.txt, or --names. Images
    without a mask are unlabeled.
    """
    found = find_mmseg(root)
    if found is None:
        raise FileNotFoundError(
            f"{root} has no folders {' or '.join(f'{a}/train and {b}/train' for a, b in LAYOUTS)}"
        )
    names, values = classes_of(root, settings)
    left_out = unread(root, (*found, *CLASS_FILES))
    subsets: dict[str, list[Entry]] = {}
    for folder in sorted(path for path in (root / found[0]).iterdir() if path.is_dir()):
        images, masks = (f"{side}/{folder.name}" for side in found)
        there = walk_images(root, masks, left_out) if (root / masks).is_dir() else []
        pairs = paired(walk_images(root, images, left_out), there, images, masks)
        for mask in sorted(set(there) - set(pairs.values())):
            left_out.add("masks without an image", mask)
        for image, mask in pairs.items():
            subset = PARTS.get(folder.name.lower(), "train") if mask else "unlabeled"
            subsets.setdefault(subset, []).append(Entry(name=image, image=image, mask=mask))
    return Source(
        kind="mmseg",
        root=root,
        classes=names,
        palette=palette_of(names),
        subsets=held_out(root, subsets, settings.val),
        values=values,
        left_out=left_out,
    )
