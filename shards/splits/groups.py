"""Groups of images by what their sources call them: scenes, cameras, days.

A score over all images hides a group that fails; a split that is drawn from all of them may leave
one out. `by` is one of

    scene       the file's name up to its first `_` or `-`
    folder      the folder that the file lies in
    REGEX       a regular expression whose first group is the name, searched in the source name
    FILE        a text file: a source name (or its last part, or that without suffix) and a group
                a line
"""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath


def group_names(names: Iterable[str], by: str) -> dict[str, str]:
    """Return the group of each source name.

    Raises ValueError for a `by` that is none of the above, that finds no group for a name, or a
    file that leaves one out.
    """
    names = list(names)
    if by == "scene":
        return {name: _scene(name) for name in names}
    if by == "folder":
        return {name: str(PurePosixPath(name).parent) for name in names}
    if Path(by).is_file():
        return _listed(names, Path(by))
    return _matched(names, by)


def _scene(name: str) -> str:
    stem = PurePosixPath(name).stem
    return re.split(r"[_-]", stem)[0].rstrip() or stem


def _matched(names: list[str], by: str) -> dict[str, str]:
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise ValueError(f"{by!r} is no regular expression ({error}), and no file") from None
    if pattern.groups < 1:
        raise ValueError(
            f"{by!r} is no file, and as a regular expression it has no group: put parentheses "
            "around what names the group, such as '^([^_]+)_'; or say scene, or folder"
        )
    groups = {}
    for name in names:
        found = pattern.search(name)
        if found is None or found[1] is None:
            raise ValueError(f"{by!r} finds no group in {name!r}")
        groups[name] = found[1]
    return groups


def _listed(names: list[str], file: Path) -> dict[str, str]:
    groups: dict[str, str] = {}
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        name, _, group = line.strip().rpartition(" ")
        if not name:
            raise ValueError(f"{file} line {number} needs a name and a group; got {line!r}")
        groups[name.strip()] = group
    found = {}
    for name in names:
        path = PurePosixPath(name)
        known = next((n for n in (name, path.name, path.stem) if n in groups), None)
        if known is None:
            raise ValueError(f"{file} names no group for {name!r}")
        found[name] = groups[known]
    return found
