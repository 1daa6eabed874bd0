"""The verb `features`: what a frozen encoder sees of a recipe's views, as shards."""

import dataclasses
import inspect
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..engine.journal import start_logging
from ..engine.settings import RunSettings
from ..methods.rounds import RoundsSettings
from ..recipes.registry import find_recipe
from ..runs.features.settings import FeatureSettings

USAGE = """\
usage: warpseg features RECIPE --data DATA --out FEATURES [--split NAME] [--views K]
                        [--encoding float16|int8|float32] [--any.setting value ...]

Runs the recipe's streams for K epochs and keeps what its frozen encoder (--network.freeze backbone)
makes of every view. `warpseg train RECIPE --features FEATURES`, with the same settings, then trains
the head without images. warpseg features RECIPE --help lists the settings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureWords:
    """Keep what a frozen encoder makes of K drawn pairs of views of each image.

    The same words go on with what was interrupted. SIGTERM and Ctrl-C stop it, exit status 143 and
    130.
    """

    data: Path
    """folder that `warpseg convert` made, or its address in a store"""
    out: Path
    """folder for the features"""
    split: str | None = None
    """a split that `warpseg split` made; without one, all masks are used"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""


def features(arguments: list[str]) -> int:
    """Make features: `features RECIPE --data DATA --split S --views K --out FEATURES`."""
    if not arguments or arguments[0].startswith("-"):
        print(USAGE)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    recipe = arguments[0]
    settings = find_recipe(recipe)
    if isinstance(settings, RoundsSettings):
        raise ValueError(f"{recipe} trains in rounds, which change images: it has no features")
    words = _parse(recipe, settings, arguments[1:])
    from ..runs.features.making import make_features
    from ..runs.features.told import table_words

    manifest = _made(make_features, words, recipe)
    if manifest is not None:
        print(table_words(manifest))
        sizes = {name: stream["bytes"] for name, stream in manifest["streams"].items()}
        print(dumps({"features": str(words.out), "bytes": sizes}))
    return 0


def _parse(recipe: str, settings: RunSettings, words: list[str]) -> Any:
    unnamed = tyro.conf.arg(name="")
    made = dataclasses.make_dataclass(
        "Words",
        [
            ("options", Annotated[FeatureSettings, unnamed], FeatureSettings()),
            (
                "settings",
                Annotated[type(settings), unnamed],
                dataclasses.field(default_factory=lambda: settings),
            ),
        ],
        bases=(FeatureWords,),
        frozen=True,
        kw_only=True,
    )
    return tyro.cli(
        made,
        args=words,
        prog=f"warpseg features {recipe}",
        description=inspect.getdoc(FeatureWords),
    )


def _made(make: Callable[..., dict[str, Any]], words: Any, recipe: str) -> dict[str, Any] | None:
    """Make the features on this rank; return the manifest on the first one."""
    from ..engine.processes.stopping import Stopped, terminating
    from ..engine.runtime import close_runtime, open_runtime
    from ..runs.staged import brought

    settings = words.settings
    runtime = open_runtime(words.device, settings.precision, settings.speed)
    start_logging(runtime.rank)
    try:
        with terminating() as stop:
            try:
                manifest = make(
                    settings,
                    words.options,
                    runtime,
                    data=brought(words.data),
                    out=words.out,
                    split=words.split,
                    recipe=recipe,
                    stop=stop,
                )
            except Stopped as stopped:
                told = f"{stopped}; the same command goes on"
                raise Stopped("" if runtime.rank else told, stop.number) from None
    finally:
        close_runtime()
    return None if runtime.rank else manifest
