"""The methods by name: each file of this folder registers what it holds. Without torch until a
method is looked up.

@method("mine", MineSettings)           @ROUNDS.register("mine-rounds")
class Mine(Method): ...                 class MineRounds(RoundsSettings): ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from ...registry import Registry
from ..engine.settings import RunSettings
from .rounds import RoundsSettings

if TYPE_CHECKING:
    from ..engine.runtime import Runtime
    from ..engine.stages import Method

Kind = TypeVar("Kind", bound="type[Method]")

METHODS: Registry[tuple[type[RunSettings], type[Method]]] = Registry(
    "method", modules=str(__package__)
)
"""Settings and method by name."""

ROUNDS: Registry[type[RoundsSettings]] = Registry("method with rounds", modules=str(__package__))
"""Settings of the methods that train in rounds, by name."""


def method(name: str, settings: type[RunSettings]) -> Callable[[Kind], Kind]:
    """Return a decorator that registers a method with its settings, a class of its own: settings
    tell which method they are for. Raise ValueError for a name that is taken."""

    def decorate(kind: Kind) -> Kind:
        METHODS.add(name, (settings, kind))
        return kind

    return decorate


def method_name(settings: RunSettings | RoundsSettings) -> str:
    """Return the name of the method that settings belong to. Raise ValueError where it is none, or
    more than one."""
    kinds: dict[str, type] = {name: kind for name, (kind, _) in METHODS.items()}
    kinds |= ROUNDS.items()
    names = [name for name, kind in kinds.items() if type(settings) is kind]
    if len(names) != 1:
        raise ValueError(
            f"{type(settings).__name__} belongs to {' and '.join(names) or 'no method'}: register "
            "each method with a class of settings of its own"
        )
    return names[0]


def settings_kind(method: str) -> type[RunSettings]:
    """Return the settings class of a method. Raise ValueError for a method that does not exist."""
    return METHODS.find(method)[0]


def ensembles_of(method: str) -> Mapping[str, tuple[str, ...]]:
    """Return the networks of each ensemble of a method, by the ensemble's name."""
    return METHODS.find(method)[1].ensembles


def build_method(settings: RunSettings, runtime: Runtime, num_classes: int) -> Method:
    """Build the method that the settings belong to."""
    return METHODS.find(method_name(settings))[1](settings, runtime, num_classes)
