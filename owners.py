"""Which plugin the entries of the registries came with: noted while one is loaded, and when an
entry is found.

It lies below `registry`, which asks it, and `plugins`, which tells it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ADDING: ContextVar[str | None] = ContextVar("adding", default=None)
_DROPS: list[Callable[[str], None]] = []
"""What removes from each registry all that a plugin added."""
_USES: list[set[str]] = [set()]
"""Plugins whose entries were found: by anybody, and within each `noting_uses` that is open."""


@contextmanager
def adding(plugin: str) -> Iterator[None]:
    """Note the entries that are added inside as a plugin's."""
    token = _ADDING.set(plugin)
    try:
        yield
    finally:
        _ADDING.reset(token)


def adding_plugin() -> str | None:
    """Return the plugin whose entries are being added, if any."""
    return _ADDING.get()


def note_use(plugin: str) -> None:
    """Note that an entry of a plugin was found."""
    for names in _USES:
        names.add(plugin)


@contextmanager
def noting_uses() -> Iterator[set[str]]:
    """Give the set of the plugins whose entries are found inside."""
    names: set[str] = set()
    _USES.append(names)
    try:
        yield names
    finally:
        _USES.pop()


def used_plugins() -> set[str]:
    """Return the plugins whose entries were found in this process."""
    return set(_USES[0])


def on_drop(drop: Callable[[str], None]) -> None:
    """Have `drop` called with each plugin that is forgotten."""
    _DROPS.append(drop)


def drop_plugin(plugin: str) -> None:
    """Remove from all registries what a plugin added."""
    for drop in _DROPS:
        drop(plugin)
    _USES[0].discard(plugin)
