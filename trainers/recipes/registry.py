"""The recipes by name: each file of this folder adds its own.

A recipe is named settings: one for each published experiment, and small ones for a CPU. A name
reads METHOD-DATASET-NETWORK, with -tiny for what a CPU finishes in minutes. A recipe is a function
that returns settings; every one of them can be changed on the command line.
"""

from collections.abc import Callable, Mapping

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
