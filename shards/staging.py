"""Data sets whose shards come as they are needed: training begins before all of them are here.

DATA/staging.json says where the shards lie and how many bytes of them may be here. A shard that is
missing is brought when it is first read, checked by its sum; the others follow in the background,
as long as there is room. Several processes of a machine share the folder: a shard's index is
locked while one of them brings it.
"""

import fcntl
import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, ClassVar

from .archive import replacing, write_text
from .images import first_line
from .manifest import ShardRecord, load_manifest
from .outside.text import checked, fields, number, read_json, text
from .outside.transfer import Transfer

FILE = "staging.json"
STALL = 60.0
"""Seconds without a byte after which a shard is asked for anew."""
RETRIES = 3
AHEAD = 2
"""Shards that are brought in the background at once."""
_CHUNK = 2**20
_FORM = fields({"url": text, "limit": number()})
_log = logging.getLogger(__name__)


class Staging:
    """The shards of one folder that come from `url`, at most `limit` bytes of them; 0: all."""

    ahead: ClassVar[int] = AHEAD

    def __init__(self, root: Path, url: str, limit: int) -> None:
        self.root, self.url, self.limit = root, url.rstrip("/"), limit
        subsets = load_manifest(root).subsets.values()
        self.records = {shard.tar: shard for subset in subsets for shard in subset.shards}
        self._following = threading.Lock()
        self._waiting: Iterator[ShardRecord] = iter(self.records.values())
        self._threads: list[threading.Thread] = []

    def bring(self, tar: str) -> None:
        """See that a shard is here, whoever of the machine's processes brings it.

        Raises OSError in one sentence where it cannot be brought, or is larger than the limit;
        ValueError where its sum is not the manifest's.
        """
        self._start()
        with self._locked(self.records[tar]):
            if not self._is_here(self.records[tar]):
                self._bring(self.records[tar])

    def _start(self) -> None:
        """Begin to bring the other shards, once."""
        with self._following:
            if not self._threads:
                self._threads = [
                    threading.Thread(target=self._follow, name="warpseg-stage", daemon=True)
                    for _ in range(self.ahead)
                ]
                for thread in self._threads:
                    thread.start()

    def _follow(self) -> None:
        while True:
            with self._following:
                record = next(self._waiting, None)
            if record is None or (self.limit and self._held() + record.bytes > self.limit):
                return
            try:
                with self._locked(record):
                    if not self._is_here(record):
                        self._bring(record)
            except (OSError, ValueError) as error:  # who needs it will say so
                _log.debug("%s was not brought ahead: %s", record.tar, error)

    def _bring(self, record: ShardRecord) -> None:
        self._make_room(record)
        for attempt in range(RETRIES + 1):
            try:
                self._copy(record)
                return
            except ValueError:
                raise
            except Exception as error:  # a driver's: many kinds
                if attempt == RETRIES:
                    raise OSError(
                        f"{self.url}/{record.tar} cannot be brought to {self.root} "
                        f"({first_line(error)}): see that it can be reached, and that there is room"
                    ) from error
                time.sleep(0.1 * 2**attempt)

    def _copy(self, record: ShardRecord) -> None:
        address, total = f"{self.url}/{record.tar}", hashlib.sha256()
        with Transfer(address, STALL) as source, replacing(self.root / record.tar) as file:
            while chunk := source.read(_CHUNK):
                total.update(chunk)
                file.write(chunk)
            if total.hexdigest() != record.sha256:
                raise ValueError(
                    f"{address} is not the shard that the manifest describes (its SHA-256 "
                    "differs): copy the data set there again"
                )

    def _make_room(self, record: ShardRecord) -> None:
        """Remove the shards that came first, until one more fits."""
        if not self.limit:
            return
        if record.bytes > self.limit:
            raise OSError(
                f"{record.tar} has {record.bytes} bytes, more than the {self.limit} that may be in "
                f"{self.root}: allow more by warpseg fetch --as-needed --limit"
            )
        here = sorted((p for t in self.records if (p := self.root / t).is_file()), key=_came)
        while here and self._held() + record.bytes > self.limit:
            here.pop(0).unlink(missing_ok=True)

    def _held(self) -> int:
        """Return the bytes of the shards that are here."""
        return sum(record.bytes for record in self.records.values() if self._is_here(record))

    def _is_here(self, record: ShardRecord) -> bool:
        return (self.root / record.tar).is_file()

    @contextmanager
    def _locked(self, record: ShardRecord) -> Iterator[None]:
        with open(self.root / record.index, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _came(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def write_staging(root: Path, url: str, limit: int) -> None:
    """Say of a data set that its shards come from `url` as they are needed."""
    write_text(root / FILE, json.dumps({"url": url, "limit": limit}) + "\n")
    staging_of.cache_clear()


def is_staged(root: Path) -> bool:
    """Tell whether shards of a data set may be missing."""
    return (root / FILE).is_file()


@lru_cache(maxsize=16)
def staging_of(root: Path) -> Staging | None:
    """Return what brings the shards of a folder, None where all are to be there."""
    if not is_staged(root):
        return None
    remedy = "run the same warpseg fetch --as-needed again"
    plain = checked(read_json(root / FILE, remedy), _FORM, root / FILE, remedy)
    return Staging(root, plain["url"], plain["limit"])


def open_shard(path: Path) -> BinaryIO:
    """Open a tar for reading; one that is still elsewhere is brought first.

    Raises what `Staging.bring` raises.
    """
    for _ in range(3):  # another process may make room in between
        try:
            return open(path, "rb")
        except FileNotFoundError:
            staging = staging_of(path.parent)
            if staging is None or path.name not in staging.records:
                raise
            staging.bring(path.name)
    return open(path, "rb")
