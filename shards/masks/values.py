"""Mask files: their values become class ids, 0 to C - 1, IGNORE or UNLABELED; anything else is
refused."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from ... import IGNORE, UNLABELED
from ..bands.arrays import read_npy
from ..images import form_of, open_image, to_rgb
from .palette import default_palette
from .readings import (
    check_grey_colours,
    check_palette,
    is_coloured,
    refuse_scaled,
    refuse_unfit,
    shown_levels,
)

MAX_CLASSES = 254


class MaskValues:
    """What the values of a data set's mask files mean.

    `ids` maps raw values of grey and palette masks (palette masks count by their index, 16-bit ones
    too; with `levels` by the level that is shown) to class ids, IGNORE or UNLABELED; `colours` maps
    RGB triples, and is what counts where no `ids` are given. With both, the ids count and colours
    that contradict them are refused; with `either`, masks in colours are read by these.
    """

    def __init__(
        self,
        ids: Mapping[int, int] | None = None,
        colours: Mapping[tuple[int, int, int], int] | None = None,
        *,
        levels: bool = False,
        either: bool = False,
    ) -> None:
        self.ids = dict(ids or {})
        self.colours = dict(colours or {})
        self.levels, self.either = levels, either
        self._remarks: list[str] = []

    def take_remarks(self) -> list[str]:
        """Return, once, what is to be said of the masks that were read since."""
        remarks, self._remarks = self._remarks, []
        return remarks

    def tell(self, remarks: Iterable[str]) -> None:
        """Have more said of what was read."""
        self._remarks += remarks

    def with_unlabeled(self, value: int | None) -> "MaskValues":
        """Return these values with one, 0 to 65535, that means not labeled yet, whatever it meant
        before; None for none.

        Raises ValueError where the value is a class, or masks are read by their colours.
        """
        if value is None:
            return self
        if not self.ids:
            raise ValueError(
                "--unlabeled-value takes a grey value; write `not labeled R G B` into classes.txt "
                "for a colour"
            )
        if self.ids.get(value, IGNORE) != IGNORE:
            raise ValueError(
                f"--unlabeled-value {value} is the value of class {self.ids[value]}: give another"
            )
        ids = {**self.ids, value: UNLABELED}
        return MaskValues(ids, self.colours, levels=self.levels, either=self.either)

    def record(self) -> dict[str, int]:
        """Return the mapping that counts as plain values for the manifest."""
        if self.ids:
            return {str(value): id_ for value, id_ in self.ids.items()}
        return {_hex(colour): id_ for colour, id_ in self.colours.items()}

    def read(self, data: bytes, file: str) -> np.ndarray:
        """Decode a mask file to class ids, uint8 (H, W).

        Raises ValueError naming `file`, the values without a meaning and the known ones, and for a
        mask that can be read in two ways.
        """
        if form_of(data) == "npy":
            return self.of_values(read_npy(data, file), file)
        image = open_image(data, file)
        refuse_unfit(image, data, file)
        if not self.ids:
            return self._by_colour(np.asarray(to_rgb(image, file)), file)
        if image.mode in ("LA", "PA"):
            image = image.getchannel(0)
        if self.levels and image.mode in ("1", "P"):
            return self.map(shown_levels(image, file), file)
        if image.mode == "1" and self.ids.get(255, IGNORE) == IGNORE:
            raise ValueError(f"{file} has 1 bit a pixel: say --mask-values binary for such masks")
        if not self.levels:
            refuse_scaled(image, data, file)
        if image.mode == "P":
            check_palette(image, self.ids, self.colours, file)
            if not self.colours and is_coloured(image, default_palette(32)):
                self._remarks.append("masks with a palette, read by index and not by colour")
        raw = np.asarray(image)
        if raw.ndim == 3:
            return self._of_channels(raw, file)
        if self.colours and image.mode == "L":
            check_grey_colours(raw, self.ids, self.colours, file)
        return self.map(raw, file)

    def of_values(self, values: np.ndarray, file: str) -> np.ndarray:
        """Read values (H, W, C) of a mask that is no picture: of one channel, or colours."""
        if values.shape[2] == 1 and self.ids:
            return self.map(np.ascontiguousarray(values[..., 0]), file)
        if values.shape[2] == 3 and values.dtype == np.uint8:
            return self._of_channels(values, file) if self.ids else self._by_colour(values, file)
        raise ValueError(
            f"{file} holds {values.dtype} of {values.shape[2]} channels: save class ids of one"
        )

    def _of_channels(self, raw: np.ndarray, file: str) -> np.ndarray:
        """Read an RGB mask: by its colours where that is allowed, else by a value that all three
        channels have."""
        grey = bool((raw[..., 0] == raw[..., 1]).all() and (raw[..., 0] == raw[..., 2]).all())
        if self.either and not (grey and raw.max() < len(self.ids) - 1):
            return self._by_colour(raw[..., :3], file)
        if not grey:
            known = (
                "say --mask-values palette to read it by the colours of classes.txt"
                if self.colours
                else "the colours of the classes are not known, so write them into classes.txt "
                "(`name R G B`) and say --mask-values palette"
            )
            raise ValueError(f"{file} is an RGB picture: {known}")
        raw = np.ascontiguousarray(raw[..., 0])
        if self.colours:
            check_grey_colours(raw, self.ids, self.colours, file)
        return self.map(raw, file)

    def map(self, raw: np.ndarray, file: str) -> np.ndarray:
        """Map raw integer values (H, W) to class ids, uint8 (H, W); raises as `read`."""
        if raw.dtype.kind not in "biu":
            raise ValueError(f"{file} holds {raw.dtype} values: save class ids as 8-bit PNG")
        if raw.dtype != np.uint8:
            raw = raw.astype(np.int64)
            if raw.min() < 0 or raw.max() > 65535:
                raise ValueError(f"{file} has values outside 0..65535: save class ids as 8-bit PNG")
        if self.levels and self.ids.get(1) == self.ids.get(255) == 1:
            _refuse_both(raw, file)
        table, unknown = _id_table(tuple(self.ids.items()))
        mask = table.take(raw)
        if (mask == unknown).any():
            values = np.unique(raw[mask == unknown])
            raise ValueError(_unknown(file, [str(v) for v in values], _ranges(self.ids)))
        return mask

    def _by_colour(self, rgb: np.ndarray, file: str) -> np.ndarray:
        codes = (rgb.astype(np.uint32) * np.array([65536, 256, 1], np.uint32)).sum(
            2, dtype=np.uint32
        )
        table, unknown = _colour_table(tuple(self.colours.items()))
        mask = table[codes]
        if (mask == unknown).any():
            rare = [f"#{v:06x}" for v in np.unique(codes[mask == unknown])]
            known = ", ".join(_hex(colour) for colour in self.colours)
            raise ValueError(_unknown(file, rare, known))
        return mask


def id_values(
    num_classes: int,
    ignored: Iterable[int] = (),
    palette: Sequence[tuple[int, int, int]] = (),
    *,
    either: bool = False,
) -> MaskValues:
    """Masks hold class ids themselves; IGNORE and the `ignored` values mean IGNORE.

    A `palette`, the classes' colours, is what an indexed mask may not contradict; with `either`,
    masks in these colours are read by them.
    """
    ids = {i: i for i in range(num_classes)} | dict.fromkeys([IGNORE, *ignored], IGNORE)
    return MaskValues(ids, {colour: i for i, colour in enumerate(palette)}, either=either)


def binary_values(ignored: Iterable[int] = ()) -> MaskValues:
    """Masks show 0 for class 0, and 255 (or 1) for class 1; the `ignored` values mean IGNORE."""
    ids = {0: 0, 1: 1, 255: 1} | dict.fromkeys(ignored, IGNORE)
    return MaskValues(ids, levels=True)


def grey_values(values: Sequence[int], ignored: Iterable[int] = ()) -> MaskValues:
    """Masks show one grey value a class, in the order of the classes."""
    ids = dict.fromkeys([255, *ignored], IGNORE)
    return MaskValues(ids | {value: i for i, value in enumerate(values)}, levels=True)


def colour_values(
    palette: Sequence[tuple[int, int, int]], ignored: Iterable[tuple[int, int, int]] = ()
) -> MaskValues:
    """Masks are RGB pictures with one colour a class, in the order of the classes."""
    colours = dict.fromkeys(ignored, IGNORE)
    return MaskValues(colours=colours | {colour: i for i, colour in enumerate(palette)})


def _refuse_both(raw: np.ndarray, file: str) -> None:
    if raw.max() == IGNORE and (raw == 1).any():
        raise ValueError(
            f"{file} holds both 1 and 255, so 255 may mean ignored: say --mask-values ids, or "
            "--id-map with what each value means"
        )


@lru_cache(maxsize=8)
def _id_table(ids: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, int]:
    """Return the id of each raw value, and what stands there for those without a meaning."""
    unknown = _free(id_ for _, id_ in ids)
    table = np.full(65536, unknown, np.uint8)
    for value, id_ in ids:
        table[value] = id_
    return table, unknown


@lru_cache(maxsize=2)
def _colour_table(
    colours: tuple[tuple[tuple[int, int, int], int], ...],
) -> tuple[np.ndarray, int]:
    unknown = _free(id_ for _, id_ in colours)
    table = np.full(1 << 24, unknown, np.uint8)
    for (red, green, blue), id_ in colours:
        table[red * 65536 + green * 256 + blue] = id_
    return table, unknown


def _free(ids: Iterable[int]) -> int:
    """Return a value that is no id, the greatest one."""
    free = set(range(IGNORE)) - set(ids)
    if not free:
        raise ValueError(
            f"{MAX_CLASSES} classes leave no value for pixels not labeled yet: give one class less"
        )
    return max(free)


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + bytes(colour).hex()


def _unknown(file: str, values: list[str], known: str) -> str:
    more = f" and {len(values) - 8} more" if len(values) > 8 else ""
    several = len(values) > 1
    return (
        f"{file} has the value{'s' * several} {', '.join(values[:8])}{more}, which "
        f"{'stand' if several else 'stands'} for no class (known: {known}): correct the mask; or, "
        f"where {'they belong' if several else 'it belongs'} to no class, in a folder of your own "
        f"{_way_on(values[:8])}"
    )


def _way_on(values: Sequence[str]) -> str:
    """Return what lets values be, ready to be copied."""
    if not values[0].startswith("#"):
        return f"add --ignore {' '.join(values)}"
    lines = " and ".join(f"`ignore {' '.join(map(str, bytes.fromhex(v[1:])))}`" for v in values)
    return f"write into classes.txt {'the lines' if len(values) > 1 else 'the line'} {lines}"


def _ranges(values: Iterable[int]) -> str:
    """Write sorted numbers shortly: 0-10, 255."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
