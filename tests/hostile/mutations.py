"""Seeded damage to files: bytes, lines and JSON values, as disks, networks and people do it."""

import json
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 10**6, 2**31, 2**63, 10**40, 0.5, 1e308, "", "x", "../../x", "/x"),
    *("a\x1b[2J", "a\nb", "x" * 5000, [], {}, [[]], [1, 2, 3], ["x"], {"a": 1}, "NaN", "\ud800"),
)
"""Values that JSON can hold where others belong."""
WORDS = (b"", b"\0", b"\xff\xfe", b"-1", b"4611686018427387904", b"9" * 5000, b"../..", b"NaN")


def flip(rng: random.Random, data: bytes) -> bytes:
    """Change some bits."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, data: bytes) -> bytes:
    """Lose the end, as an interrupted transfer does."""
    return data[: rng.randrange(len(data) + 1)]


def drop(rng: random.Random, data: bytes) -> bytes:
    """Lose a stretch in the middle."""
    first = rng.randrange(len(data) + 1)
    return data[:first] + data[first + rng.choice((1, 7, 512, 5000)) :]


def insert(rng: random.Random, data: bytes) -> bytes:
    """Add bytes in the middle."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((*WORDS, rng.randbytes(9), data[:600])) + data[at:]


def blank(rng: random.Random, data: bytes) -> bytes:
    """Fill a stretch with zeros, as a power failure does."""
    first = rng.randrange(len(data) + 1)
    count = min(rng.choice((4, 512, 10**6)), len(data) - first)
    return data[:first] + bytes(count) + data[first + count :]


def foreign(rng: random.Random, data: bytes) -> bytes:
    """Be something else."""
    return rng.choice((b"", b"<html>404</html>", rng.randbytes(300), b"%!PS-Adobe-3.0", b"\n" * 99))


def lines(rng: random.Random, data: bytes) -> bytes:
    """Change the words of one line, or its place."""
    rows = data.split(b"\n")
    at = rng.randrange(len(rows))
    words = rows[at].split(b" ")
    words[rng.randrange(len(words))] = rng.choice((*WORDS, *words, b"a b", b"\x1b[2J"))
    rows[at] = rng.choice((b" ".join(words), b"", rows[rng.randrange(len(rows))]))
    return b"\n".join(rows)


def values(rng: random.Random, data: bytes) -> bytes:
    """Put an odd value anywhere into a JSON file, or take one out."""
    root = json.loads(data)
    for _ in range(rng.choice((1, 1, 2))):
        places = list(_places(root))
        holder, key = rng.choice(places)
        what = rng.random()
        if what < 0.15:
            del holder[key]
        elif what < 0.3 and isinstance(holder, dict):
            holder[rng.choice(("", "x", "../x", "a\x1b"))] = deepcopy(rng.choice(ODD))
        else:
            holder[key] = deepcopy(rng.choice(ODD))
    return json.dumps(root).encode()


def _places(value: Any) -> Any:
    """Yield all (holder, key) of a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


BYTES: tuple[Mutation, ...] = (flip, cut, drop, insert, blank, foreign)
TEXT: tuple[Mutation, ...] = (lines, lines, *BYTES)
JSON: tuple[Mutation, ...] = (values, values, values, *BYTES)


def damage(rng: random.Random, file: Path, ways: tuple[Mutation, ...]) -> str:
    """Change a file in one of the ways, and say in which; what it says is its proof by seed."""
    way = rng.choice(ways)
    file.write_bytes(way(rng, file.read_bytes()))
    return f"{way.__name__} {file.name}"
