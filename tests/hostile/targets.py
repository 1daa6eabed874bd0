"""What is damaged, and which verb must answer in one sentence: a table to which other parts add."""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutations import Mutation, damage
from verbs import answer, faults


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of file below a folder, and the verb that reads it.

    base: name of the folder, made once, of which each input damages a copy. files: patterns of the
    files that are damaged. words: the command, given the copy. allowed: exit statuses. lines:
    whether several sentences are allowed. count: inputs.
    """

    name: str
    base: str
    files: Sequence[str]
    ways: Sequence[Mutation]
    words: Callable[[Path], Sequence[object]]
    allowed: Sequence[int] = (0, 1)
    lines: bool = False
    count: int


def try_target(target: Target, base: Path, room: Path, seed: int) -> list[str]:
    """Run all inputs of a target; return what went wrong, with what repeats it."""
    found, statuses = [], set()
    for number in range(target.count):
        rng = random.Random(f"{target.name}/{seed}/{number}")
        shutil.rmtree(room, ignore_errors=True)
        copy = room / "in" / "copy"
        shutil.copytree(base, copy, symlinks=True)
        files = sorted(file for pattern in target.files for file in copy.glob(pattern))
        assert files, f"{target.name}: nothing to damage"
        told = damage(rng, rng.choice(files), tuple(target.ways))
        given = answer([str(word) for word in target.words(copy)])
        statuses.add(given.status)
        wrong = faults(given, target.allowed, lines=target.lines)
        if sorted(path.name for path in room.iterdir()) != ["in"]:
            wrong.append("it wrote outside its folder")
        found += [f"{target.name} input {number} ({told}): {fault}" for fault in wrong]
    assert len(target.allowed) < 2 or 1 in statuses, f"{target.name}: no input was damaged"
    return found
