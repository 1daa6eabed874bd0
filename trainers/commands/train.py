"""The verbs train and report."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from ...plain import environment_number
from ..engine.journal import start_logging
from ..engine.settings import RunSettings, from_plain
from ..engine.yaml_text import read_yaml
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
        start_logging(environment_number("RANK", 0))
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
        start_logging(environment_number("RANK", 0))
        run_one_part(out, only, device=device)

    tyro.cli(run, args=arguments, prog="warpseg train")
    return 0


def _read_recipe(arguments: list[str]) -> tuple[str, RunSettings | RoundsSettings, list[str]]:
    """Take the recipe's name, or the file that changes one, off the words."""
    if not arguments[0].startswith("-"):
        return arguments[0], find_recipe(arguments[0]), arguments[1:]
    if arguments[0] != "--config" or len(arguments) < 2:
        raise ValueError(
            "train takes a RECIPE or --config FILE.yaml first; see warpseg train --help"
        )
    path = Path(arguments[1])
    if path.exists() and not path.is_file():
        raise ValueError(f"--config {path} is no file")
    try:
        changes: Any = read_yaml(path.read_text(encoding="utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no YAML: it is not in UTF-8 ({error.reason})") from None
    recipe = changes.pop("recipe", None) if isinstance(changes, dict) else None
    if not isinstance(recipe, str):
        raise ValueError(f"{path} needs a line 'recipe: NAME', the recipe that it changes")
    try:
        base = find_recipe(recipe)
        return path.stem, from_plain(type(base), changes, base), arguments[2:]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _recipe_list() -> str:
    names = "\n".join(f"  {name}" for name in RECIPES)
    return (
        "usage: warpseg train RECIPE --data DATA --out RUN [--split NAME] [--resume]\n"
        "                     [--any.setting value ...]\n"
        "       warpseg train --config FILE.yaml --data DATA --out RUN ...\n"
        "       warpseg train --only PART --out OUT     one part of rounds\n\n"
        f"recipes:\n{names}\n\nwarpseg train RECIPE --help lists its settings."
    )
