"""One line of classes.txt: `name`, `name R G B` or `name #rrggbb`, perhaps numbered `0: name`."""

import re
from collections.abc import Sequence
from pathlib import Path

from ...plain import shown

_NUMBER = re.compile(r"[0-9]{1,9}")
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_NUMBERED = re.compile(r"\s*([0-9]{1,3})\s*[:=\t)]\s*(\S.*)")


def class_lines(text: str, path: Path) -> list[str]:
    """Return the lines that name classes, without their numbers where all have one.

    Numbers are ids, so they say the order. Raises ValueError where they are not 0 to C - 1, and
    for a line that begins with a colour, which would be taken for a comment.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    for line in lines:
        if _HEX.fullmatch(line.split()[0]) and len(line.split()) > 1:
            raise ValueError(
                f"{path} has the colour first in the line {shown(line.strip())}, which is read as "
                "a comment: write `name #rrggbb`"
            )
    lines = [line for line in lines if not line.lstrip().startswith("#")]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if not lines or not all(numbered):
        return lines
    return _in_order([(int(found[1]), found[2]) for found in numbered if found], path)


def _in_order(numbered: Sequence[tuple[int, str]], path: Path) -> list[str]:
    by_id = dict(numbered)
    ids = sorted(number for number, _ in numbered)
    if ids != list(range(len(numbered))):
        raise ValueError(
            f"{path} numbers its {len(ids)} classes {ids[0]} to {ids[-1]}, and ids are 0 to "
            f"{len(ids) - 1} without gaps: name what the missing numbers are, too, or leave the "
            "numbers out and give what values mean by --id-map"
        )
    return [by_id[number] for number in ids]


def name_and_colour(line: str, path: Path) -> tuple[str, tuple[int, int, int] | None]:
    """Return the name in a line, and its colour if it has one. Raises ValueError for a colour
    beyond 255."""
    words = line.replace(",", " ").split()
    if len(words) > 1 and _HEX.fullmatch(words[-1]):
        red, green, blue = bytes.fromhex(words[-1][1:])
        return " ".join(words[:-1]), (red, green, blue)
    if len(words) < 4 or not all(_NUMBER.fullmatch(word) for word in words[-3:]):
        return line.strip(), None
    red, green, blue = (int(word) for word in words[-3:])
    if max(red, green, blue) > 255:
        raise ValueError(
            f"{path} has a colour beyond 255 in the line {shown(line.strip())}: correct it"
        )
    return " ".join(words[:-3]), (red, green, blue)
