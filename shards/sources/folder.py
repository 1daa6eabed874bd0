"""One's own images: images/, masks/, classes.txt, and perhaps val/, unlabeled/.

ROOT/images/a.jpg      ROOT/masks/a.png       the training images (folders within are allowed)
ROOT/val/images/...    ROOT/val/masks/...     images to score on
ROOT/unlabeled/b.jpg                          images without masks
ROOT/classes.txt                              one class a line: `name`, `name R G B`,
                                              `name #rrggbb`; numbered or not (`0: name`); colours
                                              of no class: `ignore R G B`, `not labeled R G B`
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ... import IGNORE, UNLABELED
from ...plain import shown, steers
from ..labeling.drawn import HeldOut, held_out
from ..masks.palette import palette_of
from ..masks.values import MaskValues, binary_values, grey_values, id_values
from ..outside.files import LeftOut
from ..outside.text import read_text
from ..registry import SOURCES
from ..source import Entry, Palette, Source, list_images, pair_with_masks, unread
from .class_lines import class_lines, name_and_colour

ValueKind = Literal["ids", "palette", "binary"]
_NO_CLASS = {"ignore": IGNORE, str(IGNORE): IGNORE, "-1": IGNORE, "unlabeled": UNLABELED}
_NUMBER = re.compile(r"[0-9]{1,9}")
_FOLDERS = ("images", "masks", "val", "unlabeled")
BINARY_CLASSES = ("background", "foreground")
OTHERS = {"ignore": IGNORE, "not labeled": UNLABELED}
"""Lines of classes.txt that give colours which are no class's."""
Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class MaskSettings(HeldOut):
    """What the values of a folder's masks mean."""

    mask_values: ValueKind = "ids"
    """ids: class ids, 255 ignored (palette PNGs by index); palette: the colours in classes.txt;
    binary: 0 and 255."""
    grey: tuple[int, ...] = ()
    """Grey value of each class in the order of classes.txt, where masks do not hold the ids."""
    id_map: Path | None = None
    """Text file with lines `value id`, `value ignore` or `value unlabeled` (not labeled yet), for
    masks with values of their own."""
    ignore: tuple[int, ...] = ()
    """Further values that belong to no class."""
    unlabeled_value: int | None = None
    """The value of pixels that nobody has labeled yet, which are trained on as those of images
    without masks are; 255, too, which means ignored otherwise."""
    mask_suffix: str = ""
    """What a mask's name has after its image's, such as _mask."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [self.mask_values != "ids", bool(self.grey), self.id_map is not None]
        if sum(given) > 1:
            raise ValueError("give one of --mask-values, --grey and --id-map, not several")
        values = (*self.grey, *self.ignore, self.unlabeled_value or 0)
        if any(not 0 <= value <= 65535 for value in values):
            raise ValueError("--grey, --ignore and --unlabeled-value take values from 0 to 65535")
        if self.mask_values == "palette" and self.ignore:
            raise ValueError(
                "--ignore takes grey values; write `ignore R G B` into classes.txt for a colour"
            )


@SOURCES.register("folder")
def load_folder(root: Path, settings: MaskSettings) -> Source:
    """List one's own images: images/, masks/, classes.txt, perhaps val/ and unlabeled/."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder, or does not exist")
    classes, colours, others = _read_classes(root, settings)
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
        values=_values(root, settings, classes, colours, others).with_unlabeled(
            settings.unlabeled_value
        ),
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
    others: Mapping[Colour, int],
) -> MaskValues:
    count = len(classes)
    if settings.mask_values == "palette":
        if not colours:
            raise ValueError(
                f"{root / 'classes.txt'} has no colours, which --mask-values palette needs: write "
                "`name R G B` on each line"
            )
        return MaskValues(colours={**others, **{c: i for i, c in enumerate(colours)}})
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
) -> tuple[tuple[str, ...], Palette, dict[Colour, int]]:
    """Return class names, their colours (all or none), and the colours that are no class's: those
    that are ignored and those of pixels not labeled yet."""
    path = root / "classes.txt"
    if not path.is_file():
        if settings.mask_values == "binary":
            return BINARY_CLASSES, (), {}
        raise FileNotFoundError(
            f"{path} is missing: name the classes there, one a line in the order of their ids"
        )
    names: list[str] = []
    colours: list[Colour] = []
    others: list[tuple[Colour, int]] = []
    for line in class_lines(read_text(path), path):
        name, colour = name_and_colour(line, path)
        if name.lower() in OTHERS and colour is not None:
            others.append((colour, OTHERS[name.lower()]))
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
    told = [*colours, *(colour for colour, _ in others)]
    if colours and (len(colours) != len(names) or len(set(told)) != len(told)):
        raise ValueError(f"{path} must give every class a colour of its own, or none a colour")
    return tuple(names), tuple(colours), dict(others)


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
    """Read lines `value id`, `value ignore` or `value unlabeled` (separated by space, comma, colon
    or tab)."""
    values: dict[int, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split("#")[0].replace(",", " ").replace(":", " ").split()
        if not words:
            continue
        other = _NO_CLASS.get(words[1].lower()) if len(words) == 2 else None
        if len(words) != 2 or not all(
            _NUMBER.fullmatch(word) for word in words[: 2 if other is None else 1]
        ):
            raise ValueError(
                f"{path} line {number} is {shown(line)}: write `value id`, `value ignore` or "
                "`value unlabeled`"
            )
        value, id_ = int(words[0]), int(words[1]) if other is None else other
        if value > 65535 or (other is None and id_ >= num_classes):
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
