"""The addresses of a pool's tars: patterns spelt out, in an order that is the list's own."""

import glob
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...plain import shown
from ..outside.text import read_text
from ..outside.transfer import PIPE

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:")


def spelt_out(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses that patterns stand for, in order.

    Braces are ranges and lists, as a shell has them; `@FILE` is a text file of patterns, a line
    each; a path may be a glob, in which ** stands for folders of any depth.

    Raises ValueError for a pattern of no address or of a star in one, and for one that comes twice;
    FileNotFoundError for a path or glob of no file, and for a folder.
    """
    addresses = [address for pattern in patterns for address in _addresses(pattern)]
    if len(set(addresses)) != len(addresses):
        twice = next(a for a in addresses if addresses.count(a) > 1)
        raise ValueError(f"--pool.urls names {shown(twice)} twice: name every tar once")
    return tuple(addresses)


def list_sum(addresses: Sequence[str]) -> str:
    """Return a short hash of a list of addresses."""
    return hashlib.sha256("\n".join(addresses).encode()).hexdigest()[:16]


def _addresses(pattern: str) -> Iterator[str]:
    if pattern.startswith("@"):
        for line in read_text(Path(pattern[1:])).splitlines():
            if line.strip() and not line.startswith("#"):
                yield from _addresses(line.strip())
        return
    if pattern.startswith(PIPE):
        yield from _braces(pattern)
        return
    for address in _braces(pattern):
        if _SCHEME.match(address):
            if "*" in address:
                raise ValueError(
                    f"--pool.urls: {shown(address)} has a star, and only paths may be globs: spell "
                    "the tars out by braces, such as pool-{000000..000099}.tar, or in a list, @FILE"
                )
            yield address
            continue
        found = [address]
        if glob.has_magic(address):
            found = sorted(glob.glob(address, recursive=True))
        folder = next((path for path in found if Path(path).is_dir()), None)
        if folder is not None:
            raise FileNotFoundError(
                f"--pool.urls: {folder} is a folder: name its tars, such as {folder}/**/*.tar"
            )
        if not found or not all(Path(path).is_file() for path in found):
            raise FileNotFoundError(f"--pool.urls: there is no file {address}")
        yield from found


def _braces(pattern: str) -> Iterator[str]:
    from braceexpand import braceexpand

    try:
        yield from braceexpand(pattern)
    except ValueError as error:
        raise ValueError(
            f"--pool.urls has braces that cannot be read ({error}): {shown(pattern)}"
        ) from None
