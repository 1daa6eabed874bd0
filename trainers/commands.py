"""The verbs train, evaluate, predict, export and report."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from .recipes import RECIPES, find_recipe
from .settings import RunSettings, from_plain


def train(arguments: list[str]) -> int:
    """Train by a recipe: `train RECIPE --data DATA --out RUN`, or by `--config FILE.yaml`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_recipe_list())
        return 0 if arguments else 2
    recipe, settings, rest = _read_recipe(arguments)

    def run(
        *,
        data: Path,
        out: Path,
        settings: Annotated[
            RunSettings, tyro.conf.arg(name="", constructor=type(settings))
        ] = settings,
        split: str | None = None,
        resume: bool = False,
        device: str = "auto",
    ) -> None:
        """Train a network.

        Args:
            data: folder that `warpseg convert` made
            out: folder for the run
            settings: the recipe
            split: a split that `warpseg split` made; without one, all masks are used
            resume: go on from the folder's last checkpoint, if it has one
            device: auto, cpu, cuda or cuda:N
        """
        from .train import train as run_training

        run_training(
            settings, data=data, out=out, split=split, resume=resume, device=device, recipe=recipe
        )

    run.__annotations__["settings"] = Annotated[type(settings), tyro.conf.arg(name="")]
    tyro.cli(run, args=rest, prog=f"warpseg train {recipe}", default=None)
    return 0


def _read_recipe(arguments: list[str]) -> tuple[str, RunSettings, list[str]]:
    """Take the recipe's name, or the file that changes one, off the words."""
    if not arguments[0].startswith("-"):
        return arguments[0], find_recipe(arguments[0]), arguments[1:]
    if arguments[0] != "--config" or len(arguments) < 2:
        raise ValueError(
            "train takes a RECIPE or --config FILE.yaml first; see warpseg train --help"
        )
    import yaml

    path = Path(arguments[1])
    changes: Any = yaml.safe_load(path.read_text())
    if not isinstance(changes, dict) or "recipe" not in changes:
        raise ValueError(f"{path} needs a line 'recipe: NAME', the recipe that it changes")
    base = find_recipe(changes.pop("recipe"))
    return path.stem, from_plain(type(base), changes, base), arguments[2:]


def _recipe_list() -> str:
    names = "\n".join(f"  {name}" for name in RECIPES)
    return (
        "usage: warpseg train RECIPE --data DATA --out RUN [--split NAME] [--resume]\n"
        "                     [--any.setting value ...]\n"
        "       warpseg train --config FILE.yaml --data DATA --out RUN ...\n\n"
        f"recipes:\n{names}\n\nwarpseg train RECIPE --help lists its settings."
    )
