"""Tar shards and their DALI indexes: written once, under a temporary name, with known offsets.

A shard is a plain USTAR archive with short member names (`00000012.jpg`); the index lists where
each sample's members lie (format v1.2 of DALI's `wds2idx`, which is wrong for long names and is not
used).
"""

import errno
import hashlib
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..plain import shown
from .outside.text import read_text

BLOCK = 512
LARGEST = 2**40
"""Bytes of a tar, at most: more is no shard."""
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_EXTENSION = re.compile(r"[a-z][a-z0-9_.]{0,31}")
_DIGITS = re.compile(r"\d{1,13}")
_KEY = re.compile(r"\d{8,12}")
Parts = dict[str, tuple[int, int]]
"""Members of one sample: extension -> (offset in the tar, size), both in bytes."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file beside `path` that takes its place, whole, when the block ends without error.

    Raises OSError with one sentence that names the file where the disk is full or cannot be written
    to; the file under its own name stays as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full" if full else os.strerror(error.errno).lower()
            raise OSError(
                f"{reason}: {path} could not be written; free some space and run the same "
                "command again, what is finished is kept"
            ) from error
        if isinstance(error, OSError) and error.filename == str(temporary):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all (UTF-8)."""
    with replacing(path) as file:
        file.write(text.encode())


class TarWriter:
    """Writes members to an open file, keeping their offsets and the sum of all bytes.

    The same members give the same bytes: no time, owner or padding beyond the format's two end
    blocks.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sum = hashlib.sha256()
        self.bytes = 0

    def add(self, name: str, data: bytes) -> tuple[int, int]:
        """Append one member and return its (offset, size)."""
        header = tarfile.TarInfo(name)
        header.size = len(data)
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        offset = self.bytes
        self._write(data)
        self._write(bytes(-len(data) % BLOCK))
        return offset, len(data)

    def finish(self) -> str:
        """Write the end of the archive and return the SHA-256 of the whole file in hex."""
        self._write(bytes(2 * BLOCK))
        return self._sum.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sum.update(data)
        self.bytes += len(data)


def index_text(samples: Iterable[tuple[str, Mapping[str, tuple[int, int]]]]) -> str:
    """Return a DALI index v1.2 of (key, parts) rows."""
    rows = [
        " ".join(f"{ext} {offset} {size} {key}.{ext}" for ext, (offset, size) in parts.items())
        for key, parts in samples
    ]
    return "\n".join([f"v1.2 {len(rows)}", *rows]) + "\n"


def count_rows(path: Path) -> int:
    """Return how many samples a DALI index says that it lists, by its first line alone.

    Raises ValueError where the file is no such index.
    """
    with open(path, "rb") as file:
        head = re.fullmatch(rb"v1\.2 (\d{1,12})\n", file.readline(64))
    if head is None:
        raise ValueError(f"{path} is no whole index (v1.2): make the split or the data set again")
    return int(head[1])


def read_index(path: Path, size: int = LARGEST) -> list[tuple[str, Parts]]:
    """Read a DALI index v1.2 as (key, parts) rows, of a tar of at most `size` bytes.

    Raises FileNotFoundError where there is none, and ValueError where the file is no such index,
    has fewer or more rows than it says, or a row that no member of the tar can be like.
    """
    try:
        lines = read_text(path).splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is missing: run the same warpseg convert again, or warpseg split --replace"
        ) from None
    head = lines[0].split() if lines else []
    if len(head) != 2 or head[0] != "v1.2" or head[1] != str(len(lines) - 1):
        raise ValueError(f"{path} is no whole index (v1.2): make the split or the data set again")
    rows = [_index_row(path, number, line, size) for number, line in enumerate(lines[1:], 2)]
    if len({key for key, _ in rows}) != len(rows):
        raise ValueError(f"{path} lists a sample twice: make the split or the data set again")
    return rows


def _index_row(path: Path, number: int, line: str, size: int) -> tuple[str, Parts]:
    fields = line.split(" ")
    key = fields[3].split(".", 1)[0] if len(fields) > 3 else ""
    parts: Parts = {}
    for extension, offset, length, name in zip(*[iter(fields)] * 4, strict=False):
        known = _EXTENSION.fullmatch(extension) and name == f"{key}.{extension}"
        if known and _DIGITS.fullmatch(offset) and _DIGITS.fullmatch(length):
            first, count = int(offset), int(length)
            if first % BLOCK == 0 and first >= BLOCK and first + count <= size:
                parts[extension] = (first, count)
    if not parts or 4 * len(parts) != len(fields) or not _KEY.fullmatch(key):
        raise ValueError(
            f"{path} is damaged (line {number} is {shown(line)}): make the split or the data set "
            "again"
        )
    return key, parts


def rows_of(tar: Path) -> list[tuple[str, Parts]]:
    """Return what the index of a tar should list, from the tar's own headers.

    Raises ValueError where one is damaged.
    """
    rows: list[tuple[str, Parts]] = []
    with open(tar, "rb") as file:
        while header := file.read(BLOCK).rstrip(b"\0"):
            try:
                member = tarfile.TarInfo.frombuf(header.ljust(BLOCK, b"\0"), "ascii", "strict")
            except (tarfile.HeaderError, UnicodeError) as error:
                raise ValueError(
                    f"{tar} is damaged ({error}): convert the data set again"
                ) from None
            key, _, extension = member.name.partition(".")
            if not rows or rows[-1][0] != key:
                rows.append((key, {}))
            rows[-1][1][extension] = (file.tell(), member.size)
            file.seek(member.size + -member.size % BLOCK, os.SEEK_CUR)
    return rows


def verify_index(tar: Path, index: Path) -> None:
    """Check against the tar's own headers that every indexed member lies where the index says.

    Raises ValueError naming the tar and the member.
    """
    with open(tar, "rb") as file:
        for key, parts in read_index(index):
            for ext, (offset, size) in parts.items():
                file.seek(offset - BLOCK)
                try:
                    header = tarfile.TarInfo.frombuf(file.read(BLOCK), "ascii", "strict")
                except (tarfile.HeaderError, UnicodeError):
                    header = None
                if header is None or (header.name, header.size) != (f"{key}.{ext}", size):
                    raise ValueError(
                        f"{index} says that {key}.{ext} lies at byte {offset} of {tar}, but it "
                        "does not: convert the data set again"
                    )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
