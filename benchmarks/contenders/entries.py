"""Who takes part in a race: recipes, each with words that change it, as runs over splits and seeds.

An entry is one word of the command line: `consistency-camvid-swiftnet-lite0-tiny`, or in quotes
`"consistency-camvid-swiftnet-lite0-tiny --mean-teacher --ema-decay 0.996"`.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...trainers.methods.rounds import RoundsSettings
from ...trainers.recipes.changes import change_recipe
from ...trainers.runs.candidates import Candidate, seed_words

_LONGEST = 120
"""Characters of an entry's folder at most."""


@dataclass(frozen=True)
class Entry:
    """A recipe with its own words, and those that hold for all."""

    name: str
    """the entry as it stands on the command line"""
    shared: tuple[str, ...] = ()

    @property
    def recipe(self) -> str:
        """The recipe's name."""
        return shlex.split(self.name)[0]

    @property
    def words(self) -> list[str]:
        """What changes the recipe: the entry's own words hold against those for all."""
        return [*self.shared, *shlex.split(self.name)[1:]]

    @property
    def folder(self) -> str:
        """Name of the entry's folder, the same for the same words in the same order."""
        return re.sub(r"[^A-Za-z0-9.=]+", "-", self.name).strip("-")[:_LONGEST]

    def settings(self, more: Sequence[str] = ()) -> Any:
        """Return its settings. Raises ValueError for a recipe that does not exist, and exits with
        status 2 for a word that is no setting of it."""
        return change_recipe(self.recipe, [*self.words, *more])

    def candidate(
        self, data: Path, split: str, seed: int, out: Path, more: Sequence[str] = ()
    ) -> Candidate:
        """Return a run of the entry; `more`: further words, such as its number of steps."""
        words = [*self.words, *more]
        words += seed_words(self.settings(), seed)
        folder = out / split / self.folder / f"seed-{seed}"
        places = ("--data", str(data), "--out", str(folder), "--resume", "--split", split)
        settings = change_recipe(self.recipe, words)
        return Candidate(self.recipe, settings, split, folder, (self.recipe, *places, *words))


def read_entries(names: Sequence[str], shared: Sequence[str]) -> list[Entry]:
    """Return the entries of a race. Raises ValueError where two would share a folder, where words
    give a seed, and what `Entry.settings` raises."""
    entries = [Entry(name, tuple(shared)) for name in dict.fromkeys(names)]
    folders: dict[str, str] = {}
    for entry in entries:
        if any(word.split("=")[0].endswith("seed") for word in entry.words if word[:2] == "--"):
            raise ValueError("a race has several seeds; say --seeds instead of --seed")
        entry.settings()
        other = folders.setdefault(entry.folder, entry.name)
        if other != entry.name:
            raise ValueError(f"{other!r} and {entry.name!r} would share a folder: reword one")
    return entries


def in_rounds(settings: Any) -> bool:
    """Tell whether settings are those of training in rounds, whose steps are not alike."""
    return isinstance(settings, RoundsSettings)
