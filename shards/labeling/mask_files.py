"""Data sets whose masks are files of class ids, and where the names of their classes stand."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ... import IGNORE
from ...plain import shown, steers
from ..masks.values import MaskValues
from ..outside.files import normal
from ..outside.text import read_json, read_text
from .drawn import HeldOut

CLASS_FILES = ("classes.txt", "labels.txt", "class_names.txt", "id2label.json")
"""Files in which the names of the classes may stand."""
MASK_SUFFIXES = ("", "_mask", "_label", "_labelTrainIds", "_gtFine_labelTrainIds")
"""What a mask's name may have after its image's."""


@dataclass(frozen=True, kw_only=True)
class MaskFileSettings(HeldOut):
    """What the values of masks mean."""

    names: tuple[str, ...] = ()
    """Names of the classes in the order of their ids, where no file gives them (classes.txt,
    labels.txt, id2label.json)."""
    zero: Literal["class", "ignore"] = "class"
    """What 0 is in masks: the first class, or no class, so that 1 is the first (as in ADE20K)."""
    ignore: tuple[int, ...] = ()
    """Further values that belong to no class."""
    unlabeled_value: int | None = None
    """The value of pixels that nobody has labeled yet; 255, too, which means ignored otherwise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not 0 <= value <= 65535 for value in (*self.ignore, self.unlabeled_value or 0)):
            raise ValueError("--ignore and --unlabeled-value take values from 0 to 65535")


def classes_of(root: Path, settings: MaskFileSettings) -> tuple[tuple[str, ...], MaskValues]:
    """Return the classes of a root and what its masks' values mean.

    Raises ValueError where nobody gives names, or twice the same.
    """
    file = next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    if settings.names:
        names = settings.names
    elif file is None:
        raise ValueError(
            f"{root} does not say what its classes are called: say --names A B C, in the order of "
            f"their ids, or write them into {root / 'classes.txt'}, one a line"
        )
    else:
        names = _read_names(file)
    strange = next((name for name in names if steers(name)), None)
    if strange is not None:
        raise ValueError(f"{file or '--names'} names {shown(strange)}, with control characters")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{file or '--names'} names {twice!r} twice: give each its own name")
    shift = settings.zero == "ignore"
    ids = {i + shift: i for i in range(len(names))}
    of_no_class = dict.fromkeys(settings.ignore, IGNORE)
    values = MaskValues({IGNORE: IGNORE, **({0: IGNORE} if shift else {}), **ids, **of_no_class})
    return names, values.with_unlabeled(settings.unlabeled_value)


def paired(
    images: Iterable[str], masks: Iterable[str], image_folder: str, mask_folder: str
) -> dict[str, str | None]:
    """Return the mask of each image, None where it has none: the same name below the other folder,
    perhaps with one of `MASK_SUFFIXES`. Raises ValueError where two files have one name."""
    there = _by_stem(masks, mask_folder)
    found: dict[str, str | None] = {}
    for stem, image in _by_stem(images, image_folder).items():
        plain = stem.removesuffix("_leftImg8bit")
        words = (*(stem + s for s in MASK_SUFFIXES), *(plain + s for s in MASK_SUFFIXES[1:]))
        found[image] = next((there[word] for word in words if word in there), None)
    return found


def _by_stem(files: Iterable[str], folder: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in files:
        stem = normal(Path(file).relative_to(folder).with_suffix("").as_posix())
        if stem in found:
            raise ValueError(f"{found[stem]} and {file} have one name: remove one")
        found[stem] = file
    return found


def _read_names(file: Path) -> tuple[str, ...]:
    if file.suffix == ".json":
        return _from_ids(file, read_json(file, "correct it, or say --names"))
    rows = [line.strip() for line in read_text(file).splitlines()]
    rows = [row for row in rows if row and not row.startswith("#")]
    return tuple(_without_colour(row) for row in rows)


def _without_colour(row: str) -> str:
    """Return the name of a line `name`, or `name R G B`."""
    words = row.replace(",", " ").split()
    coloured = len(words) > 3 and all(word.isdecimal() for word in words[-3:])
    return " ".join(words[:-3]) if coloured else row


def _from_ids(file: Path, value: Any) -> tuple[str, ...]:
    """Return the names of {"0": "wall", ...}."""
    rows = value if isinstance(value, Mapping) else {}
    names = [rows.get(str(i)) for i in range(len(rows))]
    found = tuple(name for name in names if isinstance(name, str))
    if not found or len(found) != len(rows):
        raise ValueError(f'{file} is {shown(value)}: write {{"0": "name", "1": "name", ...}}')
    return found
