"""Text and JSON files of whatever origin: read, or refused in one sentence that names the file.

A JSON value is checked by readers, functions that return a value as it should be or raise `Wrong`:

    shard = fields({"tar": text, "sizes": list_of(pair), "bytes": number()})
    shard(json_value)        # Wrong: sizes[3] is "x", not two numbers
"""

import codecs
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ...plain import shown, steers
from .files import read_file

Reader = Callable[[Any], Any]
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LARGEST = 2**63 - 1


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark (as PowerShell
    writes it).

    Raises ValueError naming a file that is neither, and FileNotFoundError.
    """
    data = read_file(path)
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte 0x{data[error.start]:02x} at {error.start}): save it "
            "as UTF-8"
        ) from None
    if "\0" in text:
        raise ValueError(f"{path} holds zero bytes, so it is no UTF-8 text: save it as UTF-8")
    return text


def read_json(path: Path, remedy: str) -> Any:
    """Read a JSON file. Raises ValueError naming it, what is wrong, and the `remedy`."""
    try:
        return json.loads(read_text(path), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError) as error:
        reason = str(error).removeprefix(f"{path} ").split("\n")[0]
        raise ValueError(f"{path} is damaged ({reason}): {remedy}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def checked(value: Any, reader: Reader, path: Path, remedy: str) -> Any:
    """Return what a reader makes of a file's value. Raises ValueError like `read_json`."""
    try:
        return reader(value)
    except Wrong as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from None


class Wrong(ValueError):
    """A value that is not what its reader expects; knows where in the file it stands."""

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(f"{place.removeprefix('.') or 'it'} {reason}")
        self.reason, self.place = reason, place

    def within(self, step: str) -> "Wrong":
        """Return the same fault as seen from one level up."""
        return Wrong(self.reason, step + self.place)


def text(value: Any) -> str:
    """Read a string without control characters."""
    if not isinstance(value, str):
        raise Wrong(f"is {shown(value)}, not a word")
    if steers(value):
        raise Wrong(f"is {shown(value)}, which has control characters")
    return value


def flag(value: Any) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise Wrong(f"is {shown(value)}, not true or false")
    return value


def number(lowest: int = 0, highest: int = _LARGEST) -> Reader:
    """Return a reader of whole numbers in a range, its ends included."""

    def read(value: Any) -> int:
        if type(value) is not int or not lowest <= value <= highest:
            ends = f"{lowest} to {highest}" if highest < _LARGEST else f"{lowest} or more"
            raise Wrong(f"is {shown(value)}, not a whole number of {ends}")
        return value

    return read


def one_of(words: Collection[str]) -> Reader:
    """Return a reader of one of some words."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise Wrong(f"is {shown(value)}, not one of {', '.join(words)}")
        return value

    return read


def hexadecimal(value: Any) -> str:
    """Read a SHA-256."""
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise Wrong(f"is {shown(value)}, not a SHA-256")
    return value


def list_of(reader: Reader, counts: Collection[int] = ()) -> Reader:
    """Return a reader of lists, as tuples; `counts` are the lengths allowed, where not all are."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise Wrong(f"is {shown(value)}, not a list")
        if counts and len(value) not in counts:
            allowed = " or ".join(str(count) for count in sorted(counts))
            raise Wrong(f"has {len(value)} entries, not {allowed}")
        found = []
        for place, entry in enumerate(value):
            try:
                found.append(reader(entry))
            except Wrong as error:
                raise error.within(f"[{place}]") from None
        return tuple(found)

    return read


def mapping(reader: Reader) -> Reader:
    """Return a reader of JSON objects whose values are all alike."""

    def read(value: Any) -> dict[str, Any]:
        return {name: _at(f".{text(name)}", reader, entry) for name, entry in _object(value)}

    return read


def fields(
    needed: Mapping[str, Reader], other: Mapping[str, Reader] | None = None, *, open: bool = False
) -> Reader:
    """Return a reader of JSON objects with the fields `needed`, perhaps those in `other`, and where
    it is `open` any further ones."""
    readers = {**needed, **(other or {})}

    def read(value: Any) -> dict[str, Any]:
        there = dict(_object(value))
        missing = [name for name in needed if name not in there]
        if missing:
            raise Wrong(f"has no {missing[0]!r}")
        strange = [name for name in there if name not in readers]
        if strange and not open:
            raise Wrong(f"has {shown(strange[0])}, which is unknown")
        return {
            name: _at(f".{name}", readers[name], entry) if name in readers else entry
            for name, entry in there.items()
        }

    return read


def anything(value: Any) -> Any:
    """Read any value."""
    return value


def plain_object(value: Any) -> dict[str, Any]:
    """Read a JSON object of any content."""
    return dict(_object(value))


def _object(value: Any) -> Any:
    if not isinstance(value, dict):
        raise Wrong(f"is {shown(value)}, not an object")
    return value.items()


def _at(step: str, reader: Reader, value: Any) -> Any:
    try:
        return reader(value)
    except Wrong as error:
        raise error.within(step) from None
