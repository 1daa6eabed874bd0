"""What can be added by name: one `Registry` each for methods, encoders, heads, recipes, strong
views, sources and loggers.

    METHODS: Registry[Entry] = Registry("method")

    @METHODS.register("mine")        or        METHODS.add("mine", value)
    class Mine: ...

The package's own entries and a stranger's (`--plugin FILE.py`) come in by the same door.
"""

from collections.abc import Callable
from difflib import get_close_matches
from typing import TypeVar

Value = TypeVar("Value")
Entry = TypeVar("Entry")


class Registry(dict[str, Value]):
    """Values by name; no name is given twice."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def add(self, name: str, value: Value) -> Value:
        """Add a value and return it. Raise ValueError for a name that is taken."""
        if name in self:
            raise ValueError(f"there is a {self.what} {name!r} already: choose another name")
        self[name] = value
        return value

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Return a decorator that adds what it decorates. Raises as `add`."""

        def decorate(value: Entry) -> Entry:
            self.add(name, value)  # pyright: ignore[reportArgumentType]
            return value

        return decorate

    def find(self, name: str) -> Value:
        """Return the value of a name. Raise ValueError, with the names that come close, if there
        is none."""
        if name in self:
            return self[name]
        near = get_close_matches(name, self, n=5)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(self)}"
        raise ValueError(f"no {self.what} {name!r}: {hint}")
