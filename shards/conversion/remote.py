"""Data sets in object storage: staged to a local disk in parallel, every shard checked by its sum.

A data set is read at random, thousands of times; object storage answers each read in tens of
milliseconds. So it is brought to each machine once, as whole files, before the first step.
"""

import hashlib
import posixpath
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..archive import replacing, verify_index
from ..dataset import SPLITS, Dataset
from ..manifest import FILE, ShardRecord, load_manifest

_CHUNK = 2**22
"""Bytes that one transfer holds in memory."""
_COMING = "manifest.fetched.json"
"""The manifest while shards are on their way; a folder without the real one is no data set yet."""


@dataclass(frozen=True)
class Fetched:
    """What a transfer did: files that came now, and their bytes."""

    fetched: int
    bytes: int


def fetch(url: str, root: Path, *, jobs: int = 8) -> Fetched:
    """Bring the data set in the folder `url` to `root`; what is there already is kept.

    At most `jobs` files come at once, some MiB of each in memory, and none before the disk is known
    to take them all. Splits come along. Raises RuntimeError where fsspec or its driver for the URL
    is missing, FileNotFoundError where there is no data set, ValueError for a shard whose sum is
    not the manifest's or a folder that holds another data set, OSError where the disk is too small.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1; got {jobs}")
    storage, folder = _open_storage(url)
    root.mkdir(parents=True, exist_ok=True)
    transfer = _Transfer(storage, folder, root)
    transfer.file(FILE, _COMING, missing=f"{url} is no converted data set (it has no {FILE})")
    coming = root / _COMING
    if (root / FILE).is_file() and (root / FILE).read_bytes() != coming.read_bytes():
        coming.unlink()
        raise ValueError(f"{root} holds another data set than {url}: choose another folder")
    manifest = load_manifest(root, _COMING)
    shards = [shard for subset in manifest.subsets.values() for shard in subset.shards]
    todo = [shard for shard in shards if not _is_there(root, shard)]
    _check_disk(root, todo, url)
    splits = transfer.listed(SPLITS)
    with ThreadPoolExecutor(jobs, "warpseg-fetch") as pool:
        counts = list(pool.map(transfer.shard, todo))
        counts += list(pool.map(transfer.file, splits))
    coming.replace(root / FILE)
    Dataset.open(root)
    return Fetched(3 * len(todo) + len(splits), sum(counts))


class _Transfer:
    """Copies files from a folder of a file system, each whole or not at all."""

    def __init__(self, storage: Any, folder: str, root: Path) -> None:
        self.storage, self.folder, self.root = storage, folder, root

    def file(self, name: str, target: str = "", *, sum: str = "", missing: str = "") -> int:
        """Copy one file, check its SHA-256 where one is given, and return its bytes."""
        path = self.root / (target or name)
        path.parent.mkdir(parents=True, exist_ok=True)
        address = posixpath.join(self.folder, name)
        digest, size = hashlib.sha256(), 0
        try:
            with self.storage.open(address, "rb") as source, replacing(path) as file:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
                if sum and digest.hexdigest() != sum:
                    raise ValueError(
                        f"{address} is not the shard that its manifest describes (its SHA-256 "
                        "differs): copy the data set there again"
                    )
        except FileNotFoundError as error:
            raise FileNotFoundError(
                missing or f"{address} is missing: copy the data set there again"
            ) from error
        return size

    def shard(self, record: ShardRecord) -> int:
        """Copy a shard, after its indexes, and return the bytes of all three."""
        size = self.file(record.index) + self.file(record.image_index)
        size += self.file(record.tar, sum=record.sha256)
        for index in (record.index, record.image_index):
            verify_index(self.root / record.tar, self.root / index)
        return size

    def listed(self, below: str) -> list[str]:
        """Return the files below a folder that are not here yet, relative to the data set."""
        start = posixpath.join(self.folder, below)
        if not self.storage.isdir(start):
            return []
        names = [posixpath.relpath(path, self.folder) for path in self.storage.find(start)]
        return [name for name in names if not (self.root / name).is_file()]


def _open_storage(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it."""
    try:
        from fsspec.core import url_to_fs

        storage, folder = url_to_fs(url)
    except ImportError as error:
        raise RuntimeError(
            f'{url} cannot be read ({error}): pip install "warpseg[remote]", and the driver that '
            "fsspec names for other storage than S3"
        ) from error
    return storage, str(folder).rstrip("/")


def _is_there(root: Path, record: ShardRecord) -> bool:
    """Whether a shard and its indexes came before; a tar is given its name when its sum agrees."""
    tar = root / record.tar
    names = (record.tar, record.index, record.image_index)
    return all((root / name).is_file() for name in names) and tar.stat().st_size == record.bytes


def _check_disk(root: Path, todo: Sequence[ShardRecord], url: str) -> None:
    needed, free = sum(shard.bytes for shard in todo), shutil.disk_usage(root).free
    if needed > free:
        raise OSError(
            f"{root} has {free / 2**20:.0f} MiB free, and {url} needs {needed / 2**20:.0f} MiB "
            "more: choose a folder on another disk"
        )
