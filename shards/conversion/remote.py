"""Data sets in object storage: staged to a local disk in parallel, every shard checked by its sum.

A data set is read at random, thousands of times; object storage answers each read in tens of
milliseconds. So it is brought to each machine once, as whole files, before the first step.
"""

import hashlib
import posixpath
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...plain import one_line
from ..archive import replacing
from ..dataset import SPLIT_FILE, SPLIT_NAME, SPLIT_SIDES, SPLITS, Dataset
from ..manifest import FILE, ShardRecord, load_manifest
from ..staging import FILE as STAGING
from ..staging import write_staging
from .made_of import fault_of_shard

_CHUNK = 2**22
"""Bytes that one transfer holds in memory."""
_LARGEST_TEXT = 2**30
"""Bytes of a manifest or an index, at most."""
_SPLIT_FILES = re.compile(
    rf"{SPLITS}/(?P<split>[^/]+)/({SPLIT_FILE}|({'|'.join(SPLIT_SIDES)})/\w+-\d{{6,9}}\.idx)"
)
_COMING = "manifest.fetched.json"
"""The manifest while shards are on their way; a folder without the real one is no data set yet."""


@dataclass(frozen=True)
class Fetched:
    """What a transfer did: files that came now, their bytes, and the splits that were here and
    differ."""

    fetched: int
    bytes: int
    kept_splits: tuple[str, ...] = ()


def fetch(
    url: str, root: Path, *, jobs: int = 8, as_needed: bool = False, limit: int = 0
) -> Fetched:
    """Bring the data set in the folder `url` to `root`; what is there already is kept.

    as_needed: bring the manifest, indexes and splits alone; shards come when they are first read,
    at most `limit` bytes of them at a time, 0 all (see `staging`).

    At most `jobs` files come at once, some MiB of each in memory, and none before the disk is known
    to take them all. A shard that is here and damaged comes again. Splits come along, each whole
    before its split.json; one that is here and differs stays.

    Raises RuntimeError where fsspec or its driver for the URL is missing, FileNotFoundError where
    there is no data set, ValueError for a shard whose sum is not the manifest's or a folder that
    holds another data set, OSError where the disk is too small.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1; got {jobs}")
    storage, folder = _open_storage(url)
    root.mkdir(parents=True, exist_ok=True)
    transfer = _Transfer(storage, folder, root)
    none = f"{url} is no converted data set (it has no {FILE}): name the folder that convert made"
    transfer.file(FILE, _COMING, missing=none)
    coming = root / _COMING
    try:
        manifest = load_manifest(root, _COMING)
    except ValueError as error:
        coming.unlink()
        raise ValueError(f"{url}: {error}") from None
    if _is_readable(root) and (root / FILE).read_bytes() != coming.read_bytes():
        coming.unlink()
        raise ValueError(f"{root} holds another data set than {url}: choose another folder")
    shards = [shard for subset in manifest.subsets.values() for shard in subset.shards]
    with ThreadPoolExecutor(jobs, "warpseg-fetch") as pool:
        whole = list(pool.map(lambda shard: _is_there(root, shard), shards))
        todo = [shard for shard, there in zip(shards, whole, strict=True) if not there]
        if as_needed:
            counts = list(pool.map(transfer.indexes, todo))
        else:
            _check_disk(root, todo, url)
            counts = list(pool.map(transfer.shard, todo))
        splits, kept = transfer.splits()
        for names in splits:
            *indexes, record = names
            counts += [*pool.map(transfer.file, indexes), transfer.file(record)]
    if as_needed:
        write_staging(root, url, limit)
    else:
        (root / STAGING).unlink(missing_ok=True)
    coming.replace(root / FILE)
    Dataset.open(root)
    return Fetched((2 if as_needed else 3) * len(todo) + sum(map(len, splits)), sum(counts), kept)


class _Transfer:
    """Copies files from a folder of a file system, each whole or not at all."""

    def __init__(self, storage: Any, folder: str, root: Path) -> None:
        self.storage, self.folder, self.root = storage, folder, root

    def file(
        self,
        name: str,
        target: str = "",
        *,
        sum: str = "",
        missing: str = "",
        limit: int = _LARGEST_TEXT,
    ) -> int:
        """Copy one file of at most `limit` bytes, check its SHA-256 where one is given, and return
        its bytes."""
        path = self.root / (target or name)
        path.parent.mkdir(parents=True, exist_ok=True)
        address = posixpath.join(self.folder, name)
        digest, size = hashlib.sha256(), 0
        try:
            with self.storage.open(address, "rb") as source, replacing(path) as file:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    if size > limit:
                        raise ValueError(
                            f"{address} has more than {limit} bytes, which is no file of a data "
                            "set: copy the data set there again"
                        )
                    file.write(chunk)
                if sum and digest.hexdigest() != sum:
                    raise ValueError(
                        f"{address} is not the shard that its manifest describes (its SHA-256 "
                        "differs): copy the data set there again"
                    )
        except FileNotFoundError as error:
            # So do drivers name a host that does not answer.
            if isinstance(error.__cause__, OSError):
                raise ConnectionError(
                    f"{address} cannot be reached ({one_line(error.__cause__)}): see that the "
                    "address is right and its server runs"
                ) from error
            raise FileNotFoundError(
                missing or f"{address} is missing: copy the data set there again"
            ) from error
        return size

    def shard(self, record: ShardRecord) -> int:
        """Copy a shard, after its indexes, and return the bytes of all three."""
        size = self.indexes(record)
        size += self.file(record.tar, sum=record.sha256, limit=record.bytes)
        fault = fault_of_shard(self.root, record)
        if fault:
            raise ValueError(f"{fault}; it came from {self.folder}: copy the data set there again")
        return size

    def indexes(self, record: ShardRecord) -> int:
        """Copy the indexes of a shard and return their bytes."""
        return self.file(record.index) + self.file(record.image_index)

    def splits(self) -> tuple[list[list[str]], tuple[str, ...]]:
        """Return the files of each split that is to come, its split.json last, relative to the data
        set, and the names of splits that are here and differ."""
        coming, kept = [], []
        for split, names in self._found_splits().items():
            record = f"{SPLITS}/{split}/{SPLIT_FILE}"
            if (self.root / record).is_file():
                address = posixpath.join(self.folder, record)
                if self.storage.cat_file(address) != (self.root / record).read_bytes():
                    kept.append(split)
                    continue
                names = {name for name in names if not (self.root / name).is_file()}
            if names:
                coming.append([*sorted(names - {record}), record])
        return coming, tuple(kept)

    def _found_splits(self) -> dict[str, set[str]]:
        """Return the files of each whole split by its name; no name leaves its folder."""
        start = posixpath.join(self.folder, SPLITS)
        found: dict[str, set[str]] = {}
        for path in self.storage.find(start) if self.storage.isdir(start) else []:
            name = posixpath.relpath(path, self.folder)
            parts = _SPLIT_FILES.fullmatch(name)
            if parts and SPLIT_NAME.fullmatch(parts["split"]):
                found.setdefault(parts["split"], set()).add(name)
        return {s: names for s, names in found.items() if f"{SPLITS}/{s}/{SPLIT_FILE}" in names}


def _open_storage(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it."""
    try:
        from fsspec.core import url_to_fs

        storage, folder = url_to_fs(url)
    except ValueError as error:
        raise ValueError(
            f"{url} is no address that fsspec knows ({error}): give one such as s3://bucket/data"
        ) from None
    except ImportError as error:
        raise RuntimeError(
            f'{url} cannot be read ({error}): pip install "warpseg[remote]", and the driver that '
            "fsspec names for other storage than S3"
        ) from error
    return storage, str(folder).rstrip("/")


def _is_readable(root: Path) -> bool:
    """Whether the folder has a manifest that says what it holds; a damaged one is replaced."""
    try:
        load_manifest(root)
    except (ValueError, OSError):
        return False
    return True


def _is_there(root: Path, record: ShardRecord) -> bool:
    """Whether a shard and its indexes came before, and are whole."""
    return not fault_of_shard(root, record)


def _check_disk(root: Path, todo: Sequence[ShardRecord], url: str) -> None:
    needed, free = sum(shard.bytes for shard in todo), shutil.disk_usage(root).free
    if needed > free:
        raise OSError(
            f"{root} has {free / 2**20:.0f} MiB free, and {url} needs {needed / 2**20:.0f} MiB "
            "more: choose a folder on another disk"
        )
