"""What can be added by name: one `Registry` each for methods, rounds, recipes, encoders, heads,
strong views, sources and loggers.

    METHODS: Registry[Entry] = Registry("method", modules="warpseg.trainers.methods")

    @METHODS.register("mine")        or        METHODS.add("mine", value)
    class Mine: ...

The package's own entries and a stranger's (`--plugin FILE.py`, see `plugins`) come in by the same
door. A registry of a package's modules imports them at the first look into it, so that each file
registers what it holds and none lists the others.
"""

import importlib
import pkgutil
import sys
from collections.abc import Callable, ItemsView, Iterator, MutableMapping, ValuesView
from difflib import get_close_matches
from typing import TypeVar

from .owners import adding_plugin, note_use, on_drop
from .plugins import load_installed

Value = TypeVar("Value")
Entry = TypeVar("Entry")


class Registry(MutableMapping[str, Value]):
    """Values by name; `add` and `register` give no name twice.

    modules: a package whose modules add the entries of their own. see: where a user finds all
    names, said in place of listing them.
    """

    def __init__(self, what: str, *, modules: str = "", see: str = "") -> None:
        self.what, self._modules, self._see = what, modules, see
        self._entries: dict[str, Value] = {}
        self._plugins: dict[str, str] = {}
        self._looked = False
        on_drop(self.drop)

    def add(self, name: str, value: Value) -> Value:
        """Add a value and return it. Raise ValueError for a name that is taken."""
        if name in self._entries:
            raise ValueError(f"there is a {self.what} {name!r} already: choose another name")
        self._entries[name] = value
        plugin = adding_plugin()
        if plugin is not None and not _in_own_module():
            self._plugins[name] = plugin
        return value

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Return a decorator that adds what it decorates. Raises as `add`."""

        def decorate(value: Entry) -> Entry:
            self.add(name, value)  # pyright: ignore[reportArgumentType]
            return value

        return decorate

    def find(self, name: str) -> Value:
        """Return the value of a name, as `[]` does. Raise ValueError, with the names that come
        close, if there is none."""
        if name not in self:
            near = get_close_matches(name, self._entries, n=5)
            listed = self._see or f"there are: {', '.join(self._entries) or 'none'}"
            hint = f"did you mean {', '.join(near)}?" if near else listed
            both = f"{hint} {self._see}" if near and self._see else hint
            raise ValueError(f"no {self.what} {name!r}: {both}")
        return self[name]

    def drop(self, plugin: str) -> None:
        """Remove what a plugin added."""
        for name in [name for name, owner in self._plugins.items() if owner == plugin]:
            del self[name]

    def items(self) -> ItemsView[str, Value]:
        """Return names and values; none of them counts as used."""
        self._look()
        return self._entries.items()

    def values(self) -> ValuesView[Value]:
        """Return the values; none of them counts as used."""
        self._look()
        return self._entries.values()

    def __contains__(self, name: object) -> bool:
        self._look()
        return name in self._entries

    def __getitem__(self, name: str) -> Value:
        """Return the value of a name, for use: a plugin it came with is noted."""
        self._look()
        if name in self._plugins:
            note_use(self._plugins[name])
        return self._entries[name]

    def __setitem__(self, name: str, value: Value) -> None:
        self._look()
        self._entries[name] = value

    def __delitem__(self, name: str) -> None:
        del self._entries[name]
        self._plugins.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        self._look()
        return iter(self._entries)

    def __len__(self) -> int:
        self._look()
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Registry({self.what!r}: {', '.join(self)})"

    def _look(self) -> None:
        """Import the modules that register themselves, and the installed plugins, once."""
        if self._looked:
            return
        self._looked = True  # modules may look in while they are imported
        try:
            if self._modules:
                package = importlib.import_module(self._modules)
                for module in pkgutil.walk_packages(package.__path__, f"{self._modules}."):
                    importlib.import_module(module.name)
            load_installed()
        except BaseException:
            self._looked = False
            raise


def _in_own_module() -> bool:
    """Tell whether the module whose import is adding an entry is one of this package's: a plugin
    may be the first that imports it."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return frame is not None and str(frame.f_globals.get("__name__")).startswith(f"{__package__}.")
