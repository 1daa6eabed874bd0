"""ADE20K as the scene parsing challenge ships it (ADEChallengeData2016): images/training,
annotations/training, images/validation, annotations/validation.

Annotations hold 0 for what belongs to none of the classes, which becomes IGNORE, and 1 to 150 for
the classes, which become 0 to 149 (MIT Scene Parsing Benchmark; `reduce_zero_label` elsewhere).
Names are read from objectInfo150.txt beside the folders.
"""

from pathlib import Path

from ..masks.palette import palette_of
from ..masks.values import grey_values
from ..outside.files import LeftOut, read_file
from ..registry import SOURCES
from ..source import Source, list_images, pair_with_masks, unread

CLASSES = 150
INFORMATION = "objectInfo150.txt"
SUBSETS = {"train": "training", "val": "validation"}


@SOURCES.register("ade20k")
def load_ade20k(root: Path) -> Source:
    """List ADE20K as the scene parsing challenge ships it: images/training and
    annotations/training, images/validation and annotations/validation, objectInfo150.txt."""
    subsets, left_out = {}, LeftOut()
    for subset, folder in SUBSETS.items():
        images = list_images(root, f"images/{folder}", left_out)
        subsets[subset] = pair_with_masks(
            root, images, f"images/{folder}", f"annotations/{folder}", left_out=left_out
        )
    left_out.join(unread(root, {"images", "annotations"}))
    classes = class_names(root / INFORMATION)
    return Source(
        kind="ade20k",
        root=root,
        classes=classes,
        palette=palette_of(classes),
        subsets=subsets,
        values=grey_values(range(1, CLASSES + 1), ignored=[0]),
        left_out=left_out,
    )


def class_names(file: Path) -> tuple[str, ...]:
    """Return the 150 names of objectInfo150.txt: the first word before a comma of the last column.

    Two classes of one first word take theirs in whole. Raises FileNotFoundError where the file is
    missing, and ValueError where it lists something else.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: it names the classes, and comes with the data")
    lines = read_file(file).decode("utf-8", "replace").splitlines()
    rows = [line.split("\t") for line in lines[1:] if line.strip()]
    numbers = [row[0].strip() for row in rows]
    if numbers != [str(number) for number in range(1, CLASSES + 1)]:
        raise ValueError(
            f"{file} must list the classes 1 to {CLASSES}, a line each below its head; got "
            f"{len(rows)} lines"
        )
    whole = [row[-1].strip() for row in rows]
    short = [name.split(",")[0].strip() for name in whole]
    return tuple(
        long if short.count(name) > 1 else name for name, long in zip(short, whole, strict=True)
    )
