"""Paths in other people's files: brought to files below the root, or refused."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from ...plain import shown, steers
from ..outside.files import UNREAD, LeftOut, normal, walk, walk_images

PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val"} | {
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What folders and lists of a part are called, and the subset that they are."""


class Images:
    """The image files below a root, found by the names that a labelling tool gives them; what is
    not taken is counted in `left_out`, other files by `tell_unread`."""

    def __init__(self, root: Path, left_out: LeftOut) -> None:
        self.root, self.left_out, found = root, left_out, LeftOut()
        self.all = walk_images(root, "", found)
        found.reasons.pop(UNREAD, None)  # labels are among them: `tell_unread` knows which
        left_out.join(found)
        self._there = {normal(name): name for name in self.all}
        self._by_stem: dict[str, list[str]] = {}
        self._by_name: dict[str, list[str]] = {}
        for name in self.all:
            stem = normal(PurePosixPath(name).with_suffix("").as_posix())
            self._by_stem.setdefault(stem, []).append(name)
            self._by_name.setdefault(normal(name.rsplit("/", 1)[-1]), []).append(name)

    def find(self, name: str, folders: Sequence[str], told_by: str) -> str:
        """Return an image's path below the root: `name` below one of the folders, the first that
        has it, or the only image of that last name.

        Raises ValueError for a name that leads out of the root or could be two images, and
        FileNotFoundError for one of no image; `told_by` is the file that names it.
        """
        parts = clean(name, told_by)
        for folder in folders:
            inside = PurePosixPath(os.path.normpath(PurePosixPath(folder, *parts))).as_posix()
            found = self._there.get(normal(inside))
            if found is not None:
                return found
        last = [part for part in parts if part != ".."][-1:]
        alike = self._by_name.get(normal(last[0]), []) if last else []
        if len(alike) == 1:
            return alike[0]
        if alike:
            raise ValueError(
                f"{self.root / told_by} names {shown(name)}, which may be {alike[0]} or "
                f"{alike[1]}: keep the images where the tool had them"
            )
        raise FileNotFoundError(
            f"{self.root / told_by} names the image {shown(name)}, which is not below {self.root}: "
            "export with images, or copy them there"
        )

    def tell_unread(self, read: Iterable[str]) -> None:
        """Count the files below the root that are neither images nor among those that were read."""
        known = {*self.all, *read}
        for name, _ in walk(self.root, "", LeftOut()):
            if name not in known:
                self.left_out.add(UNREAD, name)

    def of_stem(self, stem: str) -> list[str]:
        """Return the images of a path below the root, without its suffix."""
        return self._by_stem.get(normal(stem), [])


def head_of(path: Path) -> bytes:
    """Return the first 64 KiB of a file, enough to know what wrote it."""
    with path.open("rb") as file:
        return file.read(1 << 16)


def clean(name: str, told_by: str) -> list[str]:
    """Return the parts of a path as a tool wrote it, on whatever system; a path from the root of a
    disk keeps its parts. Raises ValueError for a name with control characters."""
    if steers(name) or not name.strip():
        raise ValueError(f"{told_by} names the image {shown(name)}, which is no name: correct it")
    slashed = name.replace("\\", "/")
    return [part for part in slashed.split("/") if part not in ("", ".")]


def part_of(name: str, default: str = "train") -> str:
    """Return the subset that a path says by one of its folders."""
    for folder in reversed(PurePosixPath(name).parts[:-1]):
        if folder.lower() in PARTS:
            return PARTS[folder.lower()]
    return default


def subset_named(words: Iterable[str], default: str) -> str:
    """Return the subset that one of some words begins with, as in train2017."""
    for word in words:
        plain = word.lower().rstrip("0123456789")
        if plain in PARTS:
            return PARTS[plain]
    return default
