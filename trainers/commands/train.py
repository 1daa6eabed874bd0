"""The verbs train and report."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from ...plugins import load_plugins, require_plugins
from ..engine.journal import start_logging
from ..engine.settings import RunSettings, from_plain
from ..methods.rounds import RoundsSettings
from ..recipes.registry import RECIPES, find_recipe
from ..runs.rounds.run import run_one_part, run_rounds
from ..runs.rounds.summary import table as rounds_table
from ..runs.train import train as run_training


def train(arguments: list[str]) -> int:
    """Train by a recipe: `train RECIPE --data DATA --out RUN`, or by `--config FILE.yaml`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_recipe_list())
        return 0 if arguments else 2
    if arguments[0] == "--only":
        return _train_part(arguments)
    _load_recorded(arguments)
    recipe, settings, rest = _read_recipe(arguments)
    run = _rounds_command if isinstance(settings, RoundsSettings) else _run_command
    tyro.cli(run(recipe, settings), args=rest, prog=f"warpseg train {recipe}")
    return 0


def _run_command(recipe: str, settings: Any) -> Callable[..., None]:
    """Return the command that trains by a recipe: its flags are the recipe's settings."""

    def run(
        *,
        data: Path,
        out: Path,
        settings: Any = settings,
        split: str | None = None,
        resume: bool = False,
        device: str = "auto",
        profile: int = 0,
    ) -> None:
        """Train a network.

        Args:
            data: folder that `warpseg convert` made
            out: folder for the run
            settings: the recipe
            split: a split that `warpseg split` made; without one, all masks are used
            resume: go on from the folder's last checkpoint, if it has one
            device: auto, cpu, cuda or cuda:N
            profile: number of steps to profile, once the run is warm, into OUT/profile
        """
        run_training(
            settings,
            data=data,
            out=out,
            split=split,
            resume=resume,
            device=device,
            recipe=recipe,
            profile=profile,
        )

    run.__annotations__["settings"] = Annotated[type(settings), tyro.conf.arg(name="")]
    return run


def _rounds_command(recipe: str, settings: Any) -> Callable[..., None]:
    """Return the command that trains in rounds by a recipe."""

    def run(
        *,
        data: Path,
        out: Path,
        settings: Any = settings,
        split: str | None = None,
        resume: bool = False,
        device: str = "auto",
        jobs: int = 1,
    ) -> None:
        """Train in rounds: networks label images for each other.

        Args:
            data: folder that `warpseg convert` made
            out: folder for all runs and labels, one for each part of the plan
            settings: the recipe
            split: a split that `warpseg split` made
            resume: go on where it was interrupted; what is finished is not done again
            device: auto, cpu, cuda or cuda:N
            jobs: parts that do not need each other run side by side, each on a GPU of its own
        """
        start_logging(int(os.environ.get("RANK", 0)))
        summary = run_rounds(
            settings,
            data=data,
            out=out,
            split=split,
            resume=resume,
            device=device,
            jobs=jobs,
            recipe=recipe,
        )
        if summary is not None:
            print(rounds_table(summary))

    run.__annotations__["settings"] = Annotated[type(settings), tyro.conf.arg(name="")]
    return run


def _train_part(arguments: list[str]) -> int:
    """Do one part of rounds that were begun: `train --only PART --out OUT`."""

    def run(*, only: str, out: Path, device: str = "auto") -> None:
        """Train or label one part of rounds whose folder `warpseg train RECIPE` has begun.

        Args:
            only: name of the part
            out: folder of the rounds
            device: auto, cpu, cuda or cuda:N
        """
        start_logging(int(os.environ.get("RANK", 0)))
        run_one_part(out, only, device=device)

    tyro.cli(run, args=arguments, prog="warpseg train")
    return 0


def _load_recorded(arguments: list[str]) -> None:
    """Load the plugins of the run that `--resume` goes on with: they may hold its recipe."""
    words = [part for word in arguments for part in word.split("=", 1)]
    if "--resume" not in words or "--out" not in words[:-1]:
        return
    file = Path(words[words.index("--out") + 1]) / "settings.json"
    if file.is_file():
        require_plugins(json.loads(file.read_text()).get("plugins", ()), file.parent)


def _read_recipe(arguments: list[str]) -> tuple[str, RunSettings | RoundsSettings, list[str]]:
    """Take the recipe's name, or the file that changes one, off the words."""
    if not arguments[0].startswith("-"):
        return arguments[0], find_recipe(arguments[0]), arguments[1:]
    if arguments[0] != "--config" or len(arguments) < 2:
        raise ValueError(
            "train takes a RECIPE or --config FILE.yaml first; see warpseg train --help"
        )
    import yaml

    path = Path(arguments[1])
    try:
        changes: Any = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from None
    if not isinstance(changes, dict) or "recipe" not in changes:
        raise ValueError(f"{path} needs a line 'recipe: NAME', the recipe that it changes")
    _load_named(changes.pop("plugins", []), path)
    base = find_recipe(changes.pop("recipe"))
    return path.stem, from_plain(type(base), changes, base), arguments[2:]


def _load_named(plugins: Any, path: Path) -> None:
    """Load the plugins that a file of settings names, by paths from its own folder."""
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        raise ValueError(f"{path}: plugins is a list of files of Python; got {plugins!r}")
    load_plugins(path.parent / name for name in plugins)


def _recipe_list() -> str:
    names = "\n".join(f"  {name}" for name in RECIPES)
    return (
        "usage: warpseg train RECIPE --data DATA --out RUN [--split NAME] [--resume]\n"
        "                     [--any.setting value ...]\n"
        "       warpseg train --config FILE.yaml --data DATA --out RUN ...\n"
        "       warpseg train --only PART --out OUT     one part of rounds\n\n"
        f"recipes:\n{names}\n\nwarpseg train RECIPE --help lists its settings."
    )
