"""Plain values from outside: read whole, held against their types, shown without harm.

What a file of ours holds may have been damaged, edited or made by a stranger. `read_json` and
`typed` let it in or refuse it in one sentence; `shown`, `printable` and `one_line` bring it to a
terminal, cut short and without control characters.
"""

import json
import os
import reprlib
import types
import typing
import unicodedata
from pathlib import Path
from typing import Any, Literal, NotRequired, TypeVar, Union

T = TypeVar("T")

MOST_BYTES = 256 * 2**20
"""A JSON file of ours is never larger."""
_SHORT = 80
_LONG = 1200
_HARMFUL = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what moves the cursor, breaks lines, turns the direction of text."""
_STEERING = {"Cc", "Cs", "Zl", "Zp"}
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that change the direction of what follows them: a name could hide its ending."""
_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


class _Short(reprlib.Repr):
    """A `repr` whose length does not grow with the value, however it is nested."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, _SHORT, _SHORT
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 6

    def repr_int(self, x: int, level: int) -> str:
        """Return a number, a huge one as the power of ten below it."""
        return str(x) if abs(x) < 10**40 else f"{'-' if x < 0 else ''}2**{x.bit_length() - 1} or so"


def shown(value: object) -> str:
    """Return a value as an error message shows it: its `repr`, cut to some eighty characters."""
    text = printable(_Short().repr(value))
    return text if len(text) <= 2 * _SHORT else f"{text[:_SHORT]} ... {text[-_SHORT // 2 :]}"


def printable(text: str) -> str:
    """Return a text with control characters and line breaks written out, as in `\\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _HARMFUL
        else character
        for character in text
    )


def steers(text: str) -> bool:
    """Tell whether a name holds what could steer a terminal or forge a line; what joins letters in
    some scripts does not."""
    return not text.isprintable() and any(
        unicodedata.category(character) in _STEERING or character in _TURNING for character in text
    )


def one_line(text: object) -> str:
    """Return what an error says as one printable line of bounded length."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= _LONG else f"{line[: _LONG // 2]} ... {line[-_LONG // 2 :]}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}{'s' * (number != 1)}"


def environment_number(name: str, default: int) -> int:
    """Return a number that torchrun sets in the environment: a rank from 0, a count from 1.

    Raises ValueError naming the variable for anything else.
    """
    word, least = os.environ.get(name, str(default)), int(name.endswith("SIZE"))
    if not (word.isascii() and word.isdigit() and len(word) < 10) or int(word) < least:
        raise ValueError(
            f"{name} in the environment is a number from {least}, set by torchrun; it is "
            f"{shown(word)}: unset it"
        )
    return int(word)


def read_json(path: Path, kind: type[T], remedy: str) -> T:
    """Read a JSON file whose content is of a kind: a `TypedDict`, or a type as `typed` knows.

    Raises FileNotFoundError where there is none, and ValueError, which ends in `remedy`, where the
    file is no JSON in UTF-8 or holds something else.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} is damaged (larger than {MOST_BYTES >> 20} MiB): {remedy}")
    try:
        value = parse_json(path.read_bytes())
        return typed(value, kind)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({one_line(error)}): {remedy}") from None


def parse_json(text: str | bytes) -> Any:
    """Return the value that JSON says. Raises ValueError for what is none, however nested."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def typed(value: object, kind: Any, where: str = "") -> Any:
    """Return the value if it is of a kind, else raise ValueError naming the place in it.

    kind: str, int, float (whole numbers too), bool, None, Any, a Literal, a union, list[...],
    tuple[X, Y] (a list of so many), dict[str, ...] or a TypedDict, whose further keys are kept.
    """
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any or kind is object:
        return value
    if origin in (NotRequired, typing.Required):
        return typed(value, inside[0], where)
    if origin is Literal:
        if not isinstance(value, str | int) or value not in inside:
            raise _unlike(value, f"one of {', '.join(map(str, inside))}", where)
    elif origin in (Union, types.UnionType):
        return _any_of(value, inside, where)
    elif typing.is_typeddict(kind):
        _check_fields(value, kind, where)
    elif origin in (list, tuple):
        _check_items(value, origin, inside, where)
    elif origin is dict or kind is dict:
        if not isinstance(value, dict):
            raise _unlike(value, "a table of names and values", where)
        for name, item in value.items():
            typed(item, inside[1] if inside else Any, _inside(where, name))
    elif not _is_plain(value, kind):
        raise _unlike(value, _NAMES.get(kind, "nothing"), where)
    return value


def _is_plain(value: object, kind: Any) -> bool:
    if kind is None or kind is type(None):
        return value is None
    if isinstance(value, bool):
        return kind is bool
    if kind is float and isinstance(value, int):
        return abs(value) < 2**1000
    return isinstance(value, kind)


def _any_of(value: object, kinds: tuple[Any, ...], where: str) -> Any:
    for kind in kinds[:-1]:
        try:
            return typed(value, kind, where)
        except ValueError:
            continue
    others = [kind for kind in kinds if kind is not type(None)]
    if value is None or len(others) > 1 or kinds[-1] is not type(None):
        return typed(value, kinds[-1], where)
    return typed(value, others[0], where)


def _check_fields(value: object, kind: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise _unlike(value, "a table of names and values", where)
    hints = typing.get_type_hints(kind, include_extras=True)
    for name, hint in hints.items():
        if name in value:
            typed(value[name], hint, _inside(where, name))
        elif typing.get_origin(hint) is not NotRequired:
            raise ValueError(f"{_inside(where, name)} is missing")


def _check_items(value: object, origin: Any, kinds: tuple[Any, ...], where: str) -> None:
    if not isinstance(value, list | tuple):
        raise _unlike(value, "a list", where)
    if origin is list or kinds[-1:] == (Ellipsis,):
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise _unlike(value, f"a list of {len(kinds)}", where)
    for number, (item, kind) in enumerate(zip(value, kinds, strict=True)):
        typed(item, kind, f"{where}[{number}]")


def _inside(where: str, name: object) -> str:
    short = shown(name)[1:-1] if isinstance(name, str) else shown(name)
    return f"{where}.{short}" if where else short


def _unlike(value: object, wanted: str, where: str) -> ValueError:
    return ValueError(f"{where or 'it'} must be {wanted}; got {shown(value)}")
