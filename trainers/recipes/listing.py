"""All recipes in words: by method and data set, a line each."""

import inspect
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from ...shards.registry import SOURCES
from ..engine.settings import RunSettings, to_plain
from ..methods.rounds import LabelPart, RoundsSettings
from .changes import words_of
from .registry import RECIPES

START = """\
where to start, on images of your own (warpseg convert folder) or on CamVid:
  warpseg train supervised-camvid-swiftnet18  --data DATA --split NAME --out runs/supervised
  warpseg train consistency-camvid-swiftnet18 --data DATA --split NAME --out runs/consistency
The second one learns from the images without masks as well, and is the one to try first; on a CPU
take the recipes that end in -tiny. Those on camvid squash images to 180 x 240 pixels, whatever
their shape; --geometry.resize None --evaluation.mode whole --evaluation.size None keeps it.
warpseg compare trains several, over seeds, and shows which is best."""
SHOWN = 4
"""Settings of a variant that are named."""


def recipe_list() -> str:
    """Return all recipes, grouped by method and data set, each with what it is, and where to
    start."""
    groups: dict[type, dict[str, dict[str, RunSettings | RoundsSettings]]] = {}
    for name, recipe in RECIPES.items():
        settings = recipe()
        groups.setdefault(type(settings), {}).setdefault(_data_of(name), {})[name] = settings
    parts = []
    for kind, by_data in groups.items():
        said = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
        lines = [f"{_method_of(by_data)}: {said}"]
        for data, recipes in by_data.items():
            lines.append(f"  on {data}" if data else "  on any data")
            lines += [f"    {name:<52} {_about(name, recipes)}" for name in recipes]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, START])


def _data_of(name: str) -> str:
    """Return the data set that a recipe's name speaks of, or nothing."""
    return next((word for word in name.split("-") if word in SOURCES), "")


def _head(name: str) -> list[str]:
    """Return the words of a name before its data set: method and variant."""
    return list(takewhile(lambda word: word not in SOURCES, name.split("-")))


def _method_of(by_data: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the words with which the names of all recipes of a method begin."""
    heads = [_head(name) for recipes in by_data.values() for name in recipes]
    together = zip(*heads, strict=False)
    shared = [words[0] for words in takewhile(lambda words: len(set(words)) == 1, together)]
    return "-".join(shared)


def _about(name: str, recipes: Mapping[str, RunSettings | RoundsSettings]) -> str:
    """Return what a recipe is: its size, or what it changes of the one without its variant."""
    words = name.split("-")
    head = len(_head(name))
    for kept in range(1, head):
        base = "-".join([*words[:kept], *words[head:]])
        if base in recipes:
            return _changes(to_plain(recipes[base]), to_plain(recipes[name]))
    return _size(recipes[name])


def _size(settings: RunSettings | RoundsSettings) -> str:
    """Return network, crop, steps and images of a step."""
    run = settings.example() if isinstance(settings, RoundsSettings) else settings
    height, width = run.geometry.crop_size
    batch = str(run.batch_size)
    unlabeled = getattr(run, "unlabeled_batch_size", None)
    batch += "" if unlabeled is None else f" + {unlabeled}"
    weights = run.network.weights.partition(":")[0]
    weights = "" if weights == "none" else f" ({weights})"
    said = f"{run.network.name}{weights}, {height} x {width}, batch {batch}"
    if not isinstance(settings, RoundsSettings):
        return f"{said}, {run.num_steps:,} steps"
    labelings = sum(isinstance(part, LabelPart) for part in settings.plan())
    return f"{said}, {settings.num_steps_in_all:,} steps in all, {labelings} labelings"


def _changes(base: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return the options that make one recipe of another."""
    options = [" ".join(words) for words in words_of(_difference(base, other), _shown)]
    more = f" and {len(options) - SHOWN} more" if len(options) > SHOWN else ""
    return f"with {' '.join(options[:SHOWN])}{more}" if options else "the same by another name"


def _difference(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values, nested, that are not those of `base`."""
    found: dict[str, Any] = {}
    for name, value in other.items():
        before = base.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := _difference(before, value):
                found[name] = inner
        elif value != before:
            found[name] = value
    return found


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
