"""The verb `train`: its words, and which recipe they change."""

import dataclasses
import inspect
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ...plain import environment_number, read_json, shown
from ...plugins import load_plugins, require_plugins
from ..engine.journal import start_logging
from ..engine.settings import RunSettings
from ..engine.yaml_text import read_yaml
from ..methods.rounds import RoundsSettings
from ..recipes.changes import change_settings, spread_words
from ..recipes.registry import find_recipe

log = logging.getLogger("warpseg")

USAGE = """\
usage: warpseg train RECIPE --data DATA --out RUN [--split NAME] [--resume]
                     [--any.setting value ...]
       warpseg train --config FILE.yaml --data DATA --out RUN ...
       warpseg train --only PART --out OUT     one part of rounds

warpseg train RECIPE --help lists its settings. A recipe reads METHOD-DATASET-NETWORK and trains on
any data set of its kind."""


@dataclass(frozen=True, kw_only=True)
class TrainWords:
    """Train a network."""

    data: Path
    """folder that `warpseg convert` made, or its address in a store, s3://bucket/data: shards come
    as they are needed"""
    out: Path
    """folder for the run; of rounds for all runs and labels, one for each part of the plan"""
    split: str | None = None
    """a split that `warpseg split` made; without one, all masks are used"""
    resume: bool = False
    """go on from the folder's last checkpoint, if it has one; of rounds, parts that are finished
    are not done again"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""


@dataclass(frozen=True, kw_only=True)
class RunWords(TrainWords):
    """Train a network."""

    profile: int = 0
    """number of steps to profile, once the run is warm, into OUT/profile"""
    features: Path | None = None
    """folder that `warpseg features` made of this recipe's views: the head of a frozen encoder
    learns from them, and images are read for the score alone"""


@dataclass(frozen=True, kw_only=True)
class RoundsWords(TrainWords):
    """Train in rounds: networks label images for each other.

    Any option of a single run holds for all parts: --num-steps is the total, divided over them as
    the recipe does; --batch-size, --optimizer.lr, --log-every and the like are copied to each.
    """

    jobs: int = 1
    """parts that do not need each other run side by side, each on a GPU of its own"""


def train(arguments: list[str]) -> int:
    """Train by a recipe: `train RECIPE --data DATA --out RUN`, or by `--config FILE.yaml`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        from ..recipes.listing import recipe_list

        print(f"{USAGE}\n\nrecipes by method and data set\n\n{recipe_list()}")
        return 0 if arguments else 2
    if arguments[0] == "--only":
        return _train_part(arguments)
    _load_recorded(arguments)
    recipe, settings, rest = _read_recipe(arguments)
    words = _parse(recipe, settings, rest)
    from ..runs.start import start

    given = {field.name: getattr(words, field.name) for field in dataclasses.fields(words)}
    summary = start(given.pop("settings"), recipe=recipe, **given)
    if summary is not None:
        from ..runs.rounds.summary import table

        print(table(summary))
    return 0


def _parse(recipe: str, settings: RunSettings | RoundsSettings, words: list[str]) -> Any:
    """Return the words of a recipe's command line: those of `TrainWords`, and its settings."""
    kind = RoundsWords if isinstance(settings, RoundsSettings) else RunWords
    settings, words = spread_words(settings, words, [f.name for f in dataclasses.fields(kind)])
    unnamed = Annotated[type(settings), tyro.conf.arg(name="")]
    made = dataclasses.make_dataclass(
        "Words",
        [("settings", unnamed, dataclasses.field(default_factory=lambda: settings))],
        bases=(kind,),
        frozen=True,
        kw_only=True,
    )
    return tyro.cli(
        made, args=words, prog=f"warpseg train {recipe}", description=inspect.getdoc(kind)
    )


def _train_part(arguments: list[str]) -> int:
    """Do one part of rounds that were begun: `train --only PART --out OUT`."""

    from ..runs.rounds.run import run_one_part

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


def _load_recorded(arguments: list[str]) -> None:
    """Load the plugins of the run that `--resume` goes on with: they may hold its recipe."""
    words = [part for word in arguments for part in word.split("=", 1)]
    if "--resume" not in words or "--out" not in words[:-1]:
        return
    file = Path(words[words.index("--out") + 1]) / "settings.json"
    if file.is_file():
        held = read_json(file, dict[str, Any], "bring it back from a copy of the run")
        require_plugins(held.get("plugins", ()), file.parent)


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
    _load_named(changes.pop("plugins", []), path)
    try:
        return path.stem, change_settings(find_recipe(recipe), changes), arguments[2:]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _load_named(plugins: Any, path: Path) -> None:
    """Load the plugins that a file of settings names, by paths from its own folder."""
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        raise ValueError(f"{path}: plugins is a list of files of Python; got {shown(plugins)}")
    load_plugins(path.parent / name for name in plugins)
