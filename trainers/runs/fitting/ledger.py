"""What a `warpseg fit` was asked for, and which of its steps are done: OUT/fit.json."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from ....plain import read_json
from ....shards.archive import write_text
from ...engine.processes.locking import LOCK
from ...engine.settings import first_difference

FILE = "fit.json"


class Done(TypedDict):
    """A step that is done: the command that does it alone, its seconds, what it found."""

    command: str
    seconds: float
    found: Any


class _File(TypedDict):
    asked: dict[str, Any]
    steps: dict[str, Done]
    lost: float


@dataclass
class Ledger:
    """The steps of one `fit`, in the order in which they were done."""

    folder: Path
    asked: dict[str, Any]
    steps: dict[str, Done] = field(default_factory=dict)
    lost: float = 0.0
    """seconds of steps that were interrupted"""

    def write(self) -> None:
        """Write the file, whole or not at all."""
        plain: _File = {"asked": self.asked, "steps": self.steps, "lost": self.lost}
        write_text(self.folder / FILE, json.dumps(plain, indent=1) + "\n")

    def found(self, step: str) -> Any:
        """Return what a finished step found."""
        return self.steps[step]["found"]

    def spent(self) -> float:
        """Return the seconds of all steps so far, over all starts."""
        return self.lost + sum(step["seconds"] for step in self.steps.values())

    @contextmanager
    def step(self, name: str, command: str) -> Iterator[dict[str, Any]]:
        """Time a step and write it down once it is done; the block puts what it found, plain
        values, under "found" of the table that it is given."""
        started, result = time.perf_counter(), {"found": None}
        try:
            yield result
        except BaseException:
            self.lost += time.perf_counter() - started
            self.write()
            raise
        seconds = round(time.perf_counter() - started, 2)
        self.steps[name] = {"command": command, "seconds": seconds, "found": result["found"]}
        self.write()


def open_ledger(
    folder: Path, asked: dict[str, Any], until: dict[str, tuple[str, ...]] | None = None
) -> Ledger:
    """Open what was done before in a folder, or begin. The caller holds the folder's lock.

    until: words that may change as long as a step is not done. Raises ValueError where the folder
    holds other files, or was begun with other words.
    """
    file = folder / FILE
    remedy = f"remove {folder}, or choose another folder for OUT"
    held = read_json(file, _File, remedy) if file.is_file() else None
    if held is None and {path.name for path in folder.iterdir()} - {LOCK, f"{FILE}.tmp"}:
        raise ValueError(f"{folder} holds other files; choose an empty or new folder for OUT")
    if held is None or not held["steps"]:
        ledger = Ledger(folder, asked)
        ledger.write()
        return ledger
    open_words = [n for step, ns in (until or {}).items() if step not in held["steps"] for n in ns]
    before = held["asked"] | {name: asked[name] for name in open_words}
    different = first_difference(before, asked)
    if different:
        raise ValueError(
            f"{folder} was begun with other words ({different}): say the same ones to go on, or "
            "choose another folder for OUT"
        )
    return Ledger(folder, asked, held["steps"], held["lost"])
