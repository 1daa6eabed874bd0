"""Masks that can be read in two ways: the right one is known, or the mask is refused.

A pixel of a mask file has up to three readings: its raw value (an index, where the file has a
palette), the grey level that a viewer shows, and the colour. They agree in most files. Where they
give different classes, and more than one of them makes sense, nobody can tell which is meant.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from ... import UNLABELED
from ..images import has_more_pages
from ..outside.encoded import grey_bits, is_lossy

Colour = tuple[int, int, int]
_ADVICE = "say --mask-values palette to take the colours, or save the mask as 8-bit grey class ids"


def refuse_unfit(image: Image.Image, data: bytes, file: str) -> None:
    """Raise ValueError for a file that cannot hold class ids: lossy, of several pages, partly
    transparent."""
    if is_lossy(data, image.format or "", image.info.get("compression")):
        kind = "JPEG" if image.format in ("JPEG", "MPO") else f"lossy {image.format}"
        raise ValueError(f"{file} is a {kind}, which alters class ids: save masks as PNG")
    if has_more_pages(image, data):
        raise ValueError(f"{file} holds several pages or frames: save the one that is the mask")
    if image.mode in ("RGBA", "LA", "PA") and image.getextrema()[-1] != (255, 255):
        raise ValueError(
            f"{file} has transparent pixels, which say nothing of classes: save it without "
            "transparency"
        )


def refuse_scaled(image: Image.Image, data: bytes, file: str) -> None:
    """Raise ValueError where Pillow shows other values than the file holds: few bits a pixel, or
    TIFF with white as 0."""
    bits = grey_bits(data)
    if bits in (2, 4):
        raise ValueError(
            f"{file} has {bits} bits a pixel, which may be ids or levels up to 255: save it with 8"
        )
    tags = getattr(image, "tag_v2", {})
    if image.format == "TIFF" and image.mode != "P" and tags.get(262) == 0:
        raise ValueError(f"{file} counts white as 0, so its ids are turned over: save it as PNG")


def shown_levels(image: Image.Image, file: str) -> np.ndarray:
    """Return the grey levels that a viewer shows, uint8 (H, W); others (16 bits) as they are.

    Raises ValueError for a palette of colours.
    """
    if image.mode == "P":
        table = palette_of(image)
        used = _used(image)
        if any(len(set(table[index])) > 1 for index in used):
            raise ValueError(
                f"{file} is indexed with colours, not grey levels: say --mask-values ids to take "
                "its indices, or palette to take its colours"
            )
        return np.asarray([table[index][0] for index in range(256)], np.uint8)[np.asarray(image)]
    return np.asarray(image.convert("L") if image.mode == "1" else image)


def check_palette(
    image: Image.Image, ids: Mapping[int, int], colours: Mapping[Colour, int], file: str
) -> None:
    """Raise ValueError where a palette says another class than the index does.

    `ids` is the meaning of indices, `colours` the classes' colours, where they are known.
    """
    table, used = palette_of(image), _used(image)
    by_index = {index: ids.get(index) for index in used}
    if all(table[index] == (index, index, index) for index in used):
        return
    if colours:
        by_colour = {index: _nearest(table[index], colours) for index in used}
        known = {i: k for i, k in by_colour.items() if k is not None and _is_class(by_index[i])}
        wrong = next((i for i, k in known.items() if k != by_index[i]), None)
        if wrong is not None:
            raise ValueError(
                f"{file} shows the index {wrong} in the colour of class {known[wrong]}: {_ADVICE}, "
                "or correct the colours in classes.txt"
            )
        if known:
            return
    levels = {index: table[index][0] for index in used if len(set(table[index])) == 1}
    if len(levels) == len(used):
        _check_levels(levels, ids, file)


def is_coloured(image: Image.Image, usual: Sequence[Colour]) -> bool:
    """Tell whether an indexed mask's palette says something: neither greys nor the `usual` one."""
    table = palette_of(image)
    return any(
        len(set(table[index])) > 1 and table[index] != (*usual, *[None] * 256)[index]
        for index in _used(image)
    )


def check_grey_colours(
    raw: np.ndarray, ids: Mapping[int, int], colours: Mapping[Colour, int], file: str
) -> None:
    """Raise ValueError where the levels of a grey mask are colours of other classes, too."""
    greys = {c[0]: k for c, k in colours.items() if c[0] == c[1] == c[2]}
    if not greys or raw.dtype != np.uint8:
        return
    values = np.flatnonzero(np.bincount(raw.ravel(), minlength=256)).tolist()
    if all(v in greys for v in values) and any(greys[v] != ids.get(v) for v in values):
        raise ValueError(
            f"{file} holds the values {', '.join(map(str, values[:8]))}, which may be ids or "
            f"colours of classes.txt: {_ADVICE}"
        )


def palette_of(image: Image.Image) -> list[Colour]:
    """Return the 256 colours of an indexed image; black beyond its own."""
    flat = image.getpalette("RGB") or []
    flat += [0] * (768 - len(flat))
    return [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, 768, 3)]


def _check_levels(levels: Mapping[int, int], ids: Mapping[int, int], file: str) -> None:
    """Compare the index with the shown level; black for 0 and white for 1 is how all tools draw
    two classes."""
    if levels.get(0, 0) == 0 and levels.get(1, 255) == 255 and max(levels) < 2:
        return
    sensible = all(level in ids for level in levels.values())
    differs = any(ids.get(level) != ids.get(index) for index, level in levels.items())
    rising = [levels[index] for index in sorted(levels)]
    if (sensible and differs) or rising != sorted(rising):
        raise ValueError(
            f"{file} is indexed, and its grey palette shows other values than its indices: save "
            "it as 8-bit grey class ids, or say --mask-values binary or --grey for shown levels"
        )


def _is_class(id_: int | None) -> bool:
    """Tell whether an index means a class, or nothing known: neither ignored nor unlabeled."""
    return id_ is None or id_ < UNLABELED


def _used(image: Image.Image) -> list[int]:
    return np.flatnonzero(np.bincount(np.asarray(image).ravel(), minlength=256)).tolist()


def _nearest(colour: Colour, colours: Mapping[Colour, int]) -> int | None:
    """Return the class whose colour is nearest, None where none is near (quantised colours are off
    by a few levels)."""
    if colour in colours:
        return colours[colour]

    def distance(other: Colour) -> int:
        return max(abs(a - b) for a, b in zip(colour, other, strict=True))

    best = min(colours, key=distance)
    return colours[best] if distance(best) <= 12 else None
