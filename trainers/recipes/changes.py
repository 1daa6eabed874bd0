"""Changes of a recipe, by words of the command line or by plain values.

A method with rounds holds the settings of several trainings. What is said without naming one of
them holds for all: `--batch-size 4` is `--supervised.batch-size 4 --phase.batch-size 4`, and
`--num-steps 400` is the total, divided as the recipe divides its own. So the same words change
recipes of all kinds; those that name a part come after and win.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

import tyro

from ..engine.settings import RunSettings, from_plain, to_plain
from ..methods.rounds import RoundsSettings
from .registry import find_recipe

Settings = TypeVar("Settings", bound=RunSettings | RoundsSettings)

TOTAL = "num_steps"
"""The setting that is divided, not copied."""


def change_recipe(name: str, words: Sequence[str]) -> RunSettings | RoundsSettings:
    """Return a recipe's settings changed by words of the command line, `--any.setting value`.

    Raises as `find_recipe`; exits with status 2 and a message for a word that is no setting of it.
    """
    settings, words = spread_words(find_recipe(name), words)
    return tyro.cli(type(settings), args=words, default=settings, prog=f"warpseg train {name}")


def change_settings(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return settings changed by values: plain ones, or settings of a group, nested as the settings
    are. Raise ValueError for a name that they do not have."""
    plain = {name: to_plain(value) for name, value in changes.items()}
    if isinstance(settings, RoundsSettings):
        own = {field.name for field in dataclasses.fields(settings)}
        shared = {name: plain.pop(name) for name in list(plain) if name not in own}
        if TOTAL in shared:
            settings = settings.divided(_number(shared.pop(TOTAL)))
        for part in settings.trainings:
            known = {field.name for field in dataclasses.fields(getattr(settings, part))}
            values = {name: value for name, value in shared.items() if name in known}
            plain[part] = _joined(values, plain.get(part, {}))
        taken = {name for part in settings.trainings for name in plain[part]}
        plain |= {name: value for name, value in shared.items() if name not in taken}
    return from_plain(type(settings), plain, settings)


def spread_words(
    settings: Settings, words: Sequence[str], others: Sequence[str] = ()
) -> tuple[Settings, list[str]]:
    """Return settings and words in which each option of a single run is said of all parts of a
    method with rounds; other settings and words are returned as they are.

    others: options that are no settings. Raises ValueError for a total that is no number of steps;
    exits with status 2 and a message for what is almost an option of a single run.
    """
    if not isinstance(settings, RoundsSettings):
        return settings, list(words)
    own = {*option_names(type(settings)), *others}
    parts = {part: set(option_names(type(getattr(settings, part)))) for part in settings.trainings}
    shared, rest = list[str](), list[str]()
    for option in _options(words):
        flag, equals, value = option[0].partition("=")
        name = _name_of(flag)
        having = [part for part, known in parts.items() if name in known]
        if name in own or not flag.startswith("--") or not having:
            _check_flag(flag, name, own, set().union(*parts.values()))
            rest += option
        elif name == TOTAL:
            settings = settings.divided(_number(value if equals else " ".join(option[1:])))
        else:
            for part in having:
                shared += [f"--{part}.{option[0].removeprefix('--')}", *option[1:]]
    return settings, shared + rest


def words_of(
    values: Mapping[str, Any], shown: Callable[[Any], str] = str, group: str = ""
) -> list[list[str]]:
    """Return values as options of the command line, each with its words, groups opened."""
    options: list[list[str]] = []
    for name, value in values.items():
        plain, flag = to_plain(value), name.replace("_", "-")
        if isinstance(plain, Mapping):
            options += words_of(plain, shown, f"{group}{flag}.")
        elif isinstance(plain, bool):
            options.append([f"--{group}{flag}" if plain else f"--{group}no-{flag}"])
        else:
            given = plain if isinstance(plain, list) else [plain]
            options.append([f"--{group}{flag}", *map(shown, given)])
    return options


def option_names(kind: type, prefix: str = "") -> Iterator[str]:
    """Yield the names of all settings of a class, groups opened: `batch_size`, `optimizer.lr`."""
    for field in dataclasses.fields(kind):
        group = field.default_factory() if callable(field.default_factory) else None
        if dataclasses.is_dataclass(group):
            yield from option_names(type(group), f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def _options(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield each option with its values."""
    option: list[str] = []
    for word in words:
        if word.startswith("--") and option:
            yield option
            option = []
        option.append(word)
    if option:
        yield option


def _name_of(flag: str) -> str:
    """Return the setting that an option is for; `--speed.no-cuda-graphs` is for
    `speed.cuda_graphs`."""
    *groups, last = flag.removeprefix("--").replace("-", "_").split(".")
    return ".".join([*groups, last.removeprefix("no_")])


def _check_flag(flag: str, name: str, own: set[str], shared: set[str]) -> None:
    """Exit with a message for a flag that is none, but is close to one of those that hold for all
    parts, which the parser does not know."""
    if name in own or not flag.startswith("--"):
        return
    near = get_close_matches(name, {*own, *shared, "help"}, n=1, cutoff=0.8)
    if near and near[0] in shared:
        meant = near[0].replace("_", "-")
        print(f"warpseg train: no option {flag}: did you mean --{meant}?", file=sys.stderr)
        sys.exit(2)


def _joined(values: Mapping[str, Any], over: Any) -> Any:
    """Return nested values with others over them."""
    if not isinstance(over, Mapping):
        return over
    made = dict(values)
    for name, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(made.get(name), Mapping)
        made[name] = _joined(made[name], value) if nested else value
    return made


def _number(value: Any) -> int:
    try:
        steps = int(value)
    except (TypeError, ValueError):
        raise ValueError(f"--num-steps takes a whole number; got {value!r}") from None
    if steps < 1:
        raise ValueError(f"--num-steps must be at least 1; got {steps}")
    return steps
