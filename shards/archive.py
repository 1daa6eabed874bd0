"""Tar shards and their DALI indexes: written once, under a temporary name, with known offsets.

A shard is a plain USTAR archive with short member names (`00000012.jpg`); the index lists where
each sample's members lie (format v1.2 of DALI's `wds2idx`, which is wrong for long names and is not
used).
"""

import errno
import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

BLOCK = 512
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Parts = dict[str, tuple[int, int]]
"""Members of one sample: extension -> (offset in the tar, size), both in bytes."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file beside `path` that takes its place, whole, when the block ends without error.

    Raises OSError with one sentence that names `path` where it cannot be written; the file under
    its own name stays as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise OSError(
                f"the disk is full: {path} could not be written; free some space and run the same "
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


def read_index(path: Path) -> list[tuple[str, Parts]]:
    """Read a DALI index v1.2 as (key, parts) rows.

    Raises FileNotFoundError where there is none, and ValueError where the file is no such index or
    has fewer or more rows than it says.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is missing: run the same warpseg convert again, or warpseg split --replace"
        ) from None
    head = lines[0].split() if lines else []
    if len(head) != 2 or head[0] != "v1.2" or head[1] != str(len(lines) - 1):
        raise ValueError(f"{path} is no whole index (v1.2): make the split or the data set again")
    samples: list[tuple[str, Parts]] = []
    for line in lines[1:]:
        fields = line.split()
        parts = {
            ext: (int(offset), int(size))
            for ext, offset, size in zip(fields[::4], fields[1::4], fields[2::4], strict=True)
        }
        samples.append((fields[3].split(".", 1)[0], parts))
    return samples


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
                except tarfile.HeaderError:
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
