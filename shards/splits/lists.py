"""Published split lists, in all their formats: which samples of a converted data set they name.

A line is an id, a path, or an image and a mask separated by spaces or a tab; with or without a
leading slash, a suffix, `leftImg8bit` and `gtFine` endings; with any line ending; CPS's flattened
Cityscapes names too. Masks in a list are not looked at: the converted sample has its own.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from ...plain import shown
from ..outside.encoded import IMAGE_SUFFIXES
from ..outside.files import normal
from ..outside.text import read_text

_ENDINGS = ("_leftImg8bit", "_gtFine_labelTrainIds", "_gtFine_labelIds", "_gtFine")
_SUFFIXES = (*IMAGE_SUFFIXES, ".npy", ".mat")
_COLUMN = re.compile(rf"({'|'.join(map(re.escape, _SUFFIXES))})\s", re.IGNORECASE)
"""What ends a column in a line: a file's suffix before a space."""
_OF_A_COPY = re.compile(r"\(\d+\)")
"""What file managers add to a copy's name."""
NAMED = 5
"""How many offending lines an error quotes."""


def plain_id(name: str) -> str:
    """Return a sample's id: its path without suffix, leading slash and Cityscapes endings.

    >>> plain_id("/leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png")
    'leftImg8bit/train/ulm/ulm_000000_000019'
    """
    path = normal(name).replace("\\", "/").lstrip("/")
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    for suffix in _SUFFIXES:
        if path.lower().endswith(suffix):
            path = path[: -len(suffix)]
            break
    for ending in _ENDINGS:
        path = path.removesuffix(ending)
    return path


def short_ids(names: Iterable[str]) -> dict[str, str]:
    """Map source names to ids without folders, or to whole ids where the short ones are not unique.

    Splits are hashed by these, so that one published list gives one sum wherever the images lie.
    """
    whole = {name: plain_id(name) for name in names}
    short = {name: PurePosixPath(path).name for name, path in whole.items()}
    return short if len(set(short.values())) == len(short) else whole


class NameTable:
    """Finds samples by what lists call them: the end of a path decides, the longest match wins."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_end: dict[str, list[str]] = defaultdict(list)
        self._whole: dict[str, list[str]] = defaultdict(list)
        for name in names:
            path = plain_id(name)
            self._whole[path].append(name)
            self._by_end[PurePosixPath(path).name].append(name)

    def find(self, text: str) -> str | None:
        """Return the source name that a list's entry means, or None.

        Raises ValueError where several samples fit equally well.
        """
        path = plain_id(text)
        words = PurePosixPath(path).parts
        found = self._whole.get(path) or self._by_end.get(words[-1] if words else "", [])
        if len(found) < 2:
            return found[0] if found else None
        shared = {name: _shared_end(words, PurePosixPath(plain_id(name)).parts) for name in found}
        best = [name for name in found if shared[name] == max(shared.values())]
        suffix = PurePosixPath(text).suffix.lower()
        same = [name for name in best if PurePosixPath(name).suffix.lower() == suffix]
        best = same if len(same) == 1 else best
        if len(best) > 1:
            raise ValueError(f"{text!r} could mean {best[0]} or {best[1]}: write more of its path")
        return best[0]


def read_list(
    path: Path, table: NameTable, others: NameTable, *, repeats: bool = False
) -> list[str]:
    """Read a list and return the source names of its samples, in its order, each once.

    `others` knows the samples of subsets that are not trained on (for the message). Raises
    ValueError naming the lines that name no sample, or (unless `repeats`) name one twice.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"the list {path} does not exist: correct the path") from None
    rows = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    rows = [(number, line) for number, line in rows if line]
    if not rows:
        raise ValueError(f"the list {path} is empty: choose another one")
    names, unknown = [], []
    for number, line in rows:
        try:
            name = _find_line(line, table)
        except ValueError as error:
            raise ValueError(f"{path} line {number}: {error}") from None
        if name is None:
            unknown.append((number, line))
        else:
            names.append(name)
    if unknown:
        raise ValueError(_unknown(path, unknown, len(rows), others))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice and not repeats:
        raise ValueError(
            f"{path} names {quoted(twice)} more than once: remove the repeated lines, or say "
            "--overlap drop"
        )
    return list(dict.fromkeys(names))


def quoted(names: Iterable[str]) -> str:
    """Return the first few names for a message, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _find_line(line: str, table: NameTable) -> str | None:
    """Find the image of a line, which names an image, or an image and its mask.

    Names may hold spaces, so a line may be read in several ways. Raises ValueError where two of
    them name different samples.
    """
    if "\t" in line:
        return table.find(line.split("\t")[0].strip())
    readings = [line] if not _COLUMN.search(line.rpartition("/")[0]) else []
    for gap in re.finditer(r"\s+", line):
        first, second = line[: gap.start()], line[gap.end() :]
        if _is_pair(first, second):
            readings.append(first)
    found = {name: text for text in readings if (name := table.find(text)) is not None}
    if len(found) > 1:
        one, two, *_ = found
        raise ValueError(
            f"{line!r} could mean {one} or {two}: write the image alone, or a tab between the two"
        )
    return next(iter(found), None)


def _is_pair(image: str, mask: str) -> bool:
    """Tell whether two parts of a line are an image and a mask: of one name, or both with the
    suffix of a file."""
    names = [PurePosixPath(plain_id(text)).name for text in (image, mask)]
    return names[0] == names[1] or all(
        text.lower().endswith(_SUFFIXES) and not _OF_A_COPY.fullmatch(PurePosixPath(text).stem)
        for text in (image, mask)
    )


def _shared_end(first: Sequence[str], second: Sequence[str]) -> int:
    pairs = zip(reversed(first), reversed(second), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _unknown(path: Path, unknown: list[tuple[int, str]], count: int, others: NameTable) -> str:
    lines = quoted(f"{shown(line)} (line {number})" for number, line in unknown)
    elsewhere = sum(_is_among(line, others) for _, line in unknown)
    hint = f"; {elsewhere} of them lie in subsets that are not trained on" if elsewhere else ""
    return (
        f"{path} names {len(unknown)} of {count} images that the data set does not have to train "
        f"on: {lines}{hint}: convert the data set with them, or correct the list"
    )


def _is_among(line: str, table: NameTable) -> bool:
    try:
        return _find_line(line, table) is not None
    except ValueError:  # it fits several
        return True
