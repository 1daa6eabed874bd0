"""Files of other people: found below a folder, read where they are files, none lost in silence.

Whatever a walk does not take is counted by its reason, so that the end of a conversion can say so.
"""

import os
import stat
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...plain import one_line, steers
from .encoded import ARRAY_SUFFIXES, IMAGE_SUFFIXES

UNREAD = "files of kinds that are not read"
_MADE_BY_SYSTEMS = frozenset({"__MACOSX", "@eaDir", "lost+found", "Thumbs.db", "desktop.ini"})


@dataclass
class LeftOut:
    """What is not taken, by reason: how many, and which first."""

    reasons: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Count one more (or `count`) of a reason; the first name of each is kept."""
        there, first = self.reasons.get(reason, (0, name))
        self.reasons[reason] = (there + count, first)

    def join(self, other: "LeftOut") -> None:
        """Add what another list counts."""
        for reason, (count, first) in other.reasons.items():
            self.add(reason, first, count)

    def lines(self, before: str) -> list[str]:
        """Return a line for each reason: `before`, how many, the reason, which first."""
        return [
            one_line(f"{before}: {count} {reason} (first: {first})")
            for reason, (count, first) in self.reasons.items()
        ]


def read_file(path: Path) -> bytes:
    """Read a file whole; a pipe is not waited for, and a device not read.

    Raises ValueError naming what is no regular file, and what opening raises.
    """
    # Without O_NONBLOCK the opening of a pipe waits for a writer.
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ValueError(f"{path} is a folder, pipe or device where a file should be: remove it")
    with open(number, "rb") as file:
        return file.read()


def walk_images(
    root: Path, folder: str, left_out: LeftOut, suffixes: Collection[str] = IMAGE_SUFFIXES
) -> list[str]:
    """Return the image files below a folder, sorted, as paths below `root`; those with `suffixes`.

    Links to folders are followed, each folder once. Hidden files, what systems put beside images,
    other kinds of files, and pipes and devices are counted in `left_out`. Raises ValueError for a
    name that is not UTF-8 or would steer a terminal, and OSError for a folder that cannot be read.
    """
    found = []
    for name, _ in walk(root, folder, left_out):
        if Path(name).suffix.lower() in suffixes:
            check_name(root / name)
            found.append(name)
        else:
            left_out.add(UNREAD, name)
    return sorted(found)


def walk_pictures(root: Path, folder: str) -> tuple[list[str], LeftOut]:
    """Return the pictures below a folder, its arrays where it has none, and what is left out; see
    `walk_images`."""
    for suffixes in (IMAGE_SUFFIXES, ARRAY_SUFFIXES):
        left_out = LeftOut()
        found = walk_images(root, folder, left_out, suffixes)
        if found:
            return found, left_out
    return [], left_out


def walk(root: Path, folder: str, left_out: LeftOut) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the regular files below a folder as (path below `root`, entry); see `walk_images`."""
    start = f"{folder}/" if folder not in ("", ".") else ""
    seen: set[tuple[int, int]] = set()
    waiting, linked = [start], []
    while waiting or linked:
        # Links come last, so that a folder is known by its own name where it has one here.
        here = waiting.pop() if waiting else linked.pop(0)
        state = os.stat(root / here)
        if (state.st_dev, state.st_ino) in seen:
            left_out.add("links to folders that are read already", here)
            continue
        seen.add((state.st_dev, state.st_ino))
        with os.scandir(root / here) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            name = here + entry.name
            if entry.name.startswith(".") or entry.name in _MADE_BY_SYSTEMS:
                left_out.add("hidden files and folders", name)
            elif entry.is_dir():
                (linked if entry.is_symlink() else waiting).append(f"{name}/")
            elif entry.is_file():
                yield name, entry
            elif entry.is_symlink() and not os.path.exists(entry.path):
                left_out.add("links to nothing", name)
            else:
                left_out.add("pipes and devices", name)


def check_name(path: Path) -> None:
    """Raise ValueError for a file whose name is not UTF-8 or holds control characters: it can be
    written into no list and no manifest."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{one_line(name)} has a name that is not UTF-8: rename it") from None
    if steers(path.name):
        raise ValueError(f"{one_line(name)} has control characters in its name: rename it")


def normal(name: str) -> str:
    """Return a name in the composed form: macOS writes an accent apart from its letter."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
