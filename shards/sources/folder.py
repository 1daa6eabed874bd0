"""One's own images: images/, masks/, classes.txt, and perhaps val/, unlabeled/.

ROOT/images/a.jpg      ROOT/masks/a.png       the training images (folders within are allowed)
ROOT/val/images/...    ROOT/val/masks/...     images to score on
ROOT/unlabeled/b.jpg                          images without masks
ROOT/classes.txt                              one class a line: `name`, `name R G B`,
                                              `name #rrggbb`; numbered or not (`0: name`)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ... import IGNORE
from ...plain import shown, steers
from ..labeling.drawn import HeldOut, held_out
from ..masks import (
    MaskValues,
    binary_values,
    colour_values,
    grey_values,
    id_values,
)
from ..outside.files import LeftOut
from ..outside.text import read_text
from ..palette import palette_of
from ..registry import SOURCES
from ..source import Entry, Palette, Source, list_images, pair_with_masks, unread
from .class_lines import class_lines, name_and_colour

ValueKind = Literal["ids", "palette", "binary"]
_NUMBER = re.compile(r"[0-9]{1,9}")
_FOLDERS = ("images", "masks", "val", "unlabeled")
BINARY_CLASSES = ("background", "foreground")


@dataclass(frozen=True, kw_only=True)
class MaskSettings(HeldOut):
    """What the values of a folder's masks mean."""

    mask_values: ValueKind = "ids"
    """ids: class ids, 255 ignored (palette PNGs by index); palette: the colours in classes.txt;
    binary: 0 and 255."""
    grey: tuple[int, ...] = ()
    """Grey value of each class in the order of classes.txt, where masks do not hold the ids."""
    id_map: Path | None = None
    """Text file with lines `value id`, or `value ignore`, for masks with values of their own."""
    ignore: tuple[int, ...] = ()
    """Further values that belong to no class."""
    mask_suffix: str = ""
    """What a mask's name has after its image's, such as _mask."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [self.mask_values != "ids", bool(self.grey), self.id_map is not None]
        if sum(given) > 1:
            raise ValueError("give one of --mask-values, --grey and --id-map, not several")
        if any(not 0 <= value <= 65535 for value in (*self.grey, *self.ignore)):
            raise ValueError("--grey and --ignore take values from 0 to 65535")
        if self.mask_values == "palette" and self.ignore:
            raise ValueError(
                "--ignore takes grey values; write `ignore R G B` into classes.txt for a colour"
            )


@SOURCES.register("folder")
def load_folder(root: Path, settings: MaskSettings) -> Source:
    """List one's own images: images/, masks/, classes.txt, perhaps val/ and unlabeled/."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder, or does not exist")
    classes, colours, ignored = _read_classes(root, settings)
    left_out = unread(root, _FOLDERS)
    subsets = {"train": _pairs(root, "", settings, left_out)}
    if (root / "val").is_dir():
        subsets["val"] = _pairs(root, "val/", settings, left_out)
        left_out.join(unread(root, _FOLDERS[:2], "val/"))
    if (root / "unlabeled").is_dir():
        images = list_images(root, "unlabeled", left_out)
        subsets["unlabeled"] = [Entry(name=image, image=image) for image in images]
    if settings.val:
        subsets = held_out(root, subsets, settings.val)
    return Source(
        kind="folder",
        root=root,
        classes=classes,
        palette=colours or palette_of(classes),
        subsets=subsets,
        values=_values(root, settings, classes, colours, ignored),
        left_out=left_out,
    )


def _pairs(root: Path, below: str, settings: MaskSettings, left_out: LeftOut) -> list[Entry]:
    folders = f"{below}images", f"{below}masks"
    images = list_images(root, folders[0], left_out)
    suffix = settings.mask_suffix
    return pair_with_masks(root, images, *folders, suffix, left_out, option="--mask-suffix")


def _values(
    root: Path,
    settings: MaskSettings,
    classes: Sequence[str],
    colours: Palette,
    ignored: Sequence[tuple[int, int, int]],
) -> MaskValues:
    count = len(classes)
    if settings.mask_values == "palette":
        if not colours:
            raise ValueError(
                f"{root / 'classes.txt'} has no colours, which --mask-values palette needs: write "
                "`name R G B` on each line"
            )
        return colour_values(colours, ignored)
    if settings.mask_values == "binary":
        if count != 2:
            raise ValueError(f"--mask-values binary is for 2 classes; classes.txt names {count}")
        return binary_values(settings.ignore)
    if settings.grey:
        if len(settings.grey) != count or len(set(settings.grey)) != count:
            raise ValueError(
                f"--grey needs a value of its own for each of the {count} classes; got "
                f"{settings.grey}"
            )
        return grey_values(settings.grey, settings.ignore)
    if settings.id_map is not None:
        ids = _read_id_map(settings.id_map, count) | dict.fromkeys(settings.ignore, IGNORE)
        return MaskValues(ids, {colour: i for i, colour in enumerate(colours)})
    return id_values(count, settings.ignore, colours)


def _read_classes(
    root: Path, settings: MaskSettings
) -> tuple[tuple[str, ...], Palette, list[tuple[int, int, int]]]:
    """Return class names, their colours (all or none), and the colours that are ignored."""
    path = root / "classes.txt"
    if not path.is_file():
        if settings.mask_values == "binary":
            return BINARY_CLASSES, (), []
        raise FileNotFoundError(
            f"{path} is missing: name the classes there, one a line in the order of their ids"
        )
    names: list[str] = []
    colours: list[tuple[int, int, int]] = []
    ignored: list[tuple[int, int, int]] = []
    for line in class_lines(read_text(path), path):
        name, colour = name_and_colour(line, path)
        if name.lower() == "ignore" and colour is not None:
            ignored.append(colour)
            continue
        if steers(name):
            raise ValueError(f"{path} has control characters in the class {name!r}: remove them")
        names.append(name)
        colours += [] if colour is None else [colour]
    if len(names) == 1:
        names, colours = _with_background(names, colours, path, settings)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path} names {twice!r} twice: give every class its own name")
    if colours and (
        len(colours) != len(names) or len({*colours, *ignored}) != len(colours + ignored)
    ):
        raise ValueError(f"{path} must give every class a colour of its own, or none a colour")
    return tuple(names), tuple(colours), ignored


def _with_background(
    names: list[str],
    colours: list[tuple[int, int, int]],
    path: Path,
    settings: MaskSettings,
) -> tuple[list[str], list[tuple[int, int, int]]]:
    """Return one class and what lies around it, which binary masks show as 0. Raise ValueError for
    other masks."""
    if settings.mask_values != "binary":
        raise ValueError(
            f"{path} names one class, {names[0]}: write what is around it above, such as "
            "`background`; or, for masks of 0 and 255, say --mask-values binary, which does so"
        )
    black = [(0, 0, 0)] if colours and colours[0] != (0, 0, 0) else [(255, 255, 255)]
    return [BINARY_CLASSES[0], *names], [*black[: len(colours)], *colours]


def _read_id_map(path: Path, num_classes: int) -> dict[int, int]:
    """Read lines `value id` or `value ignore` (separated by space, comma, colon or tab)."""
    values: dict[int, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split("#")[0].replace(",", " ").replace(":", " ").split()
        if not words:
            continue
        ignored = len(words) == 2 and words[1].lower() in ("ignore", str(IGNORE), "-1")
        if len(words) != 2 or not all(
            _NUMBER.fullmatch(word) for word in words[: 1 if ignored else 2]
        ):
            raise ValueError(
                f"{path} line {number} is {shown(line)}: write `value id` or `value ignore`"
            )
        value, id_ = int(words[0]), IGNORE if ignored else int(words[1])
        if value > 65535 or (id_ != IGNORE and id_ >= num_classes):
            raise ValueError(
                f"{path} line {number} gives the value {value} the id {id_}: values go to 65535, "
                f"ids to {num_classes - 1} (classes.txt)"
            )
        if values.setdefault(value, id_) != id_:
            raise ValueError(
                f"{path} line {number} gives the value {value} a second meaning: correct it"
            )
    if not values:
        raise ValueError(f"{path} is empty: write `value id` or `value ignore` on each line")
    return values
