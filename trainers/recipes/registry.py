"""The recipes by name: each file of this folder adds its own.

A recipe is named settings: one for each published experiment, and small ones for a CPU. A name
reads METHOD-DATASET-NETWORK, with -tiny for what a CPU finishes in minutes. A recipe is a function
that returns settings; every one of them can be changed on the command line.
"""

from collections.abc import Callable, Mapping, Sequence

import tyro

from ...registry import Registry
from ..engine.settings import RunSettings
from ..methods.rounds import RoundsSettings

Recipe = Callable[[], RunSettings | RoundsSettings]

RECIPES: Registry[Recipe] = Registry(
    "recipe", modules=str(__package__), see="`warpseg train --help` lists all"
)
"""Recipes by name."""


def add_recipes(recipes: Mapping[str, Recipe]) -> None:
    """Add recipes. Raise ValueError for a name that is taken."""
    for name, recipe in recipes.items():
        RECIPES.add(name, recipe)


def find_recipe(name: str) -> RunSettings | RoundsSettings:
    """Return a recipe's settings. Raise ValueError with the names that come close when it does not
    exist."""
    return RECIPES.find(name)()


def change_recipe(name: str, words: Sequence[str]) -> RunSettings | RoundsSettings:
    """Return a recipe's settings changed by words of the command line, `--any.setting value`.

    Raises as `find_recipe`; exits with status 2 and a message for a word that is no setting of it.
    """
    settings = find_recipe(name)
    return tyro.cli(type(settings), args=words, default=settings, prog=f"warpseg train {name}")
