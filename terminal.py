"""What names and values from outside look like in a message: one line, short, harmless."""

import unicodedata

LONGEST = 1200
"""Characters of a message that are shown."""
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that change the direction of what follows them: a name could hide its ending."""


def printable(text: object, longest: int = LONGEST) -> str:
    """Return a text in one line, with control characters written out and its middle left out where
    it is long: a file's name must neither steer the terminal nor forge a line of ours.

    >>> printable("a\\x1b[2J b")
    'a\\\\x1b[2J b'
    """
    shown = str(text)
    if not shown.isprintable():
        shown = " ".join(shown.split("\n")) if "\n" in shown else shown
        shown = "".join(map(_written_out, shown))
    if len(shown) > longest:
        shown = f"{shown[: longest * 2 // 3]} ... {shown[-longest // 4 :]}"
    return shown


def steers(text: str) -> bool:
    """Tell whether a text holds characters that `printable` would write out, or a line break."""
    return not text.isprintable() and any(c in "\n\t\r" or _written_out(c) != c for c in text)


def _written_out(character: str) -> str:
    if character == "\t":
        return " "
    hidden = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _TURNING
    return character.encode("unicode_escape").decode() if hidden else character
