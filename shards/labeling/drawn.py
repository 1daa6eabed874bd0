"""A source whose masks are drawn when they are packed, and how labels become classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ... import IGNORE, UNLABELED
from ...plain import shown, steers
from ..images import open_image
from ..masks.palette import palette_of
from ..masks.values import id_values
from ..outside.files import LeftOut, read_file
from ..outside.turning import upright
from ..source import Entry, Palette, Source, shuffling_hash
from .regions import Drawing, labels_of

BACKGROUND = ("background", "_background_", "__background__")
IGNORED = ("ignore", "__ignore__", "void", "unlabeled", "unlabelled")
_NO_CLASS = {IGNORE: "ignore", UNLABELED: "unlabeled"}
NOBODY = "\x00"
"""The label of regions that belong to no class: no tool can write it."""
Subsets = dict[str, dict[str, Drawing | None]]
"""By subset, each image (a path below the root) with its drawing, None where it has none."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What is scored on where a data set does not say it."""

    val: float = 0.0
    """Share of the images with masks that becomes `val`, where the data set has no such part."""

    def __post_init__(self) -> None:
        if not 0 <= self.val < 1:
            raise ValueError(f"--val is a share from 0 up to 1, such as 0.2; got {self.val}")


@dataclass(frozen=True, kw_only=True)
class DrawnSettings(HeldOut):
    """How what was drawn becomes classes."""

    names: tuple[str, ...] = ()
    """Classes to take, in the order of their ids; all that the data set names where none is given.
    Regions of other classes are left out."""
    ignore: tuple[str, ...] = ()
    """Classes whose pixels belong to no class, beside ignore, void and unlabeled."""
    rest: Literal["auto", "background", "ignore", "unlabeled"] = "auto"
    """Pixels that nobody drew: background is a class, the first; ignore; unlabeled, so trained on
    as those of images without a drawing are (scribbles); auto is background, unless the data set
    draws stuff as well as things."""
    overlap: Literal["auto", "order", "smallest"] = "auto"
    """What lies on top where regions overlap: what the tool shows on top (order), or the smallest;
    auto is order for tools that have one."""
    empty: Literal["unlabeled", "rest"] = "unlabeled"
    """Images of which nothing is drawn: unlabeled ones, or masks without a region."""


@dataclass(kw_only=True)
class DrawnSource(Source):
    """Images with regions; masks are painted when they are read."""

    drawings: Mapping[str, Drawing] = field(default_factory=dict)

    def read(self, entry: Entry) -> tuple[bytes | np.ndarray, np.ndarray | None]:
        """Return an image's file and its class ids, uint8 (H, W); None for an unlabeled image.

        Raises ValueError where the image has another size than the one that was drawn on.
        """
        path = self.root / entry.image
        data = read_file(path)
        if entry.mask is None:
            return data, None
        drawing = self.drawings[entry.name]
        image = open_image(data, str(path), load=False)
        size = (image.height, image.width)
        if drawing.size is not None and drawing.size not in (size, size[::-1]):
            raise ValueError(
                f"{path} is {size[1]} x {size[0]} pixels, but {drawing.file} was drawn on "
                f"{drawing.size[1]} x {drawing.size[0]}: use the images that were labeled"
            )
        if drawing.size is None:
            turned = upright(image, str(path))
            size = (turned.height, turned.width)
        mask, told = drawing.paint(drawing.size or size)
        self.values.tell(told)
        return data, mask


def drawn_source(
    kind: str,
    root: Path,
    subsets: Subsets,
    settings: DrawnSettings,
    left_out: LeftOut,
    *,
    classes: Sequence[str] = (),
    colours: Mapping[str, tuple[int, int, int]] | None = None,
    whole: bool = False,
    smallest_on_top: bool = False,
) -> DrawnSource:
    """Make a source of images with drawings.

    classes: names in the order of the data set, where it has one; colours: by name, used where all
    classes have one of their own. whole: stuff is drawn, too, so that the rest is unknown.
    smallest_on_top: the tool has no order. Drawings without a size are made on the upright image.
    """
    drawings = [d for images in subsets.values() for d in images.values() if d is not None]
    told = [n for n in classes or labels_of(drawings) if n != NOBODY]
    strange = next((name for name in told if steers(name)), None)
    if strange is not None:
        raise ValueError(f"{root} has a class named {shown(strange)}, with control characters")
    names, ids, rest = _classes(root, told, settings, whole)
    _count_others(drawings, ids, left_out)
    smallest = smallest_on_top if settings.overlap == "auto" else settings.overlap == "smallest"
    source_subsets: dict[str, list[Entry]] = {}
    kept: dict[str, Drawing] = {}
    for subset, images in subsets.items():
        for image, drawing in sorted(images.items()):
            bare = drawing is None or not (drawing.regions or settings.empty == "rest")
            if drawing is None or bare:
                source_subsets.setdefault("unlabeled", []).append(Entry(name=image, image=image))
                continue
            kept[image] = replace(drawing, ids=ids, rest=rest, smallest_on_top=smallest)
            entry = Entry(name=image, image=image, mask=drawing.file)
            source_subsets.setdefault(subset, []).append(entry)
    if "train" not in source_subsets and left_out.reasons:
        raise ValueError(
            f"{root} has no image with a mask to train on "
            f"({'; '.join(left_out.lines('not taken'))}): draw outlines, or say --empty rest where "
            "images without a region show no class"
        )
    return DrawnSource(
        kind=kind,
        root=root,
        classes=names,
        palette=_palette(names, colours or {}),
        subsets=held_out(root, source_subsets, settings.val),
        values=id_values(len(names)),
        settings={
            "names": list(settings.names),
            "ignore": list(settings.ignore),
            "rest": _NO_CLASS.get(rest, "background"),
            "overlap": "smallest" if smallest else "order",
            "empty": settings.empty,
        },
        left_out=left_out,
        drawings=kept,
    )


def held_out(
    root: Path, subsets: Mapping[str, list[Entry]], share: float
) -> dict[str, list[Entry]]:
    """Put a share of `train` aside as `val`, chosen by the names, always the same.

    Raises ValueError where there is a `val`, nothing to train on, or too little to divide.
    """
    ordered = {name: subsets[name] for name in ("train", "val", "test") if name in subsets}
    ordered |= subsets
    train = ordered.get("train", [])
    if not train:
        raise ValueError(
            f"{root} has no image with a mask to train on: draw some, or say --empty rest where "
            "images without a region show no class"
        )
    if not share:
        return ordered
    if "val" in ordered:
        raise ValueError(
            f"{root} has a val part of its own ({len(ordered['val'])} images): leave out --val"
        )
    count = max(1, round(share * len(train)))
    if count >= len(train):
        raise ValueError(f"{root} has {len(train)} images with masks: too few for --val {share}")
    chosen = {e.name for e in sorted(train, key=lambda e: shuffling_hash(e.name, "val"))[:count]}
    return {
        "train": [entry for entry in train if entry.name not in chosen],
        "val": [entry for entry in train if entry.name in chosen],
        **{name: entries for name, entries in ordered.items() if name != "train"},
    }


def _classes(
    root: Path, told: list[str], settings: DrawnSettings, whole: bool
) -> tuple[tuple[str, ...], dict[str, int], int]:
    """Return the classes' names, the id of each label, and the id of what nobody drew."""
    twice = next((name for name in told if told.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{root} names the class {twice!r} twice: give every class its own name")
    strange = next((name for name in (*settings.names, *settings.ignore) if name not in told), None)
    if strange is not None and strange.lower() not in BACKGROUND:
        raise ValueError(f"{root} has no class {strange!r}; it has {', '.join(told)}")
    ignored = [n for n in told if n in settings.ignore or n.lower() in IGNORED]
    wanted = [n for n in settings.names or told if n not in ignored]
    back = next((name for name in wanted if name.lower() in BACKGROUND), None)
    ignoring = settings.rest in _NO_CLASS.values() or (settings.rest == "auto" and whole)
    if not ignoring and back is None:
        back = BACKGROUND[0]
        wanted = [back, *wanted]
    elif back is not None and not settings.names:
        wanted = [back, *(name for name in wanted if name != back)]
    ids = {name: i for i, name in enumerate(wanted)} | dict.fromkeys([*ignored, NOBODY], IGNORE)
    if settings.rest == "unlabeled":
        return tuple(wanted), ids, UNLABELED
    return tuple(wanted), ids, IGNORE if ignoring or back is None else ids[back]


def _count_others(drawings: Sequence[Drawing], ids: Mapping[str, int], left_out: LeftOut) -> None:
    for drawing in drawings:
        for region in drawing.regions:
            if region.label not in ids:
                left_out.add("regions of classes that --names does not give", region.label)


def _palette(names: Sequence[str], colours: Mapping[str, tuple[int, int, int]]) -> Palette:
    own = tuple(colours.get(name, (0, 0, 0)) for name in names)
    return own if len(set(own)) == len(own) else palette_of(names)
