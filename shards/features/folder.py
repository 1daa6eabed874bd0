"""A folder of features: its manifest, its shards written and read.

FEATURES/manifest.json        of which encoder, images and views; sizes, errors, sums
FEATURES/STREAM-000000.tar    records (see layout), and the index of each tar
"""

import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..archive import LARGEST, TarWriter, index_text, replacing, write_text
from ..manifest import FILE, load_made, tar_name
from ..outside.text import (
    fields,
    flag,
    hexadecimal,
    list_of,
    mapping,
    number,
    plain_object,
)
from .layout import ENDING, LAYOUT, Layout, key_of, member_name, sealed

VERSION = 1
REMEDY = "remove the folder, and make the features again"
AGAIN = "the same `warpseg features` makes it again"
_TENS = 10 ** np.arange(1, 16)


@dataclass(frozen=True, kw_only=True)
class FeatureShard:
    """One finished tar: the records of the places from `first` on."""

    tar: str
    first: int
    records: int
    bytes: int
    sha256: str


def shard_name(stream: str, number: int) -> str:
    """Return the file name of a shard."""
    return f"{stream}-{number:06d}.tar"


def write_feature_shard(
    root: Path,
    name: str,
    layout: Layout,
    first: int,
    records: Iterable[Mapping[str, np.ndarray]],
) -> FeatureShard:
    """Write one shard and its index, whole or not at all; the same records give the same bytes.
    layout: that of `sealed` records.

    Raises ValueError for a record of another layout.
    """
    path, rows = root / name, []
    with replacing(path) as file:
        tar = TarWriter(file)
        for place, arrays in enumerate(map(sealed, records), first):
            if Layout.of(arrays) != layout:
                raise ValueError(f"record {place} of {name} has other arrays than the first one")
            key = key_of(place)
            parts = {
                f"{member.name}.{ENDING}": tar.add(
                    member_name(key, member.name),
                    member.head + np.ascontiguousarray(arrays[member.name]).tobytes(),
                )
                for member in layout.members
            }
            rows.append((key, parts))
        total = tar.finish()
    write_text(path.with_suffix(".idx"), index_text(rows))
    return FeatureShard(tar=name, first=first, records=len(rows), bytes=tar.bytes, sha256=total)


def index_bytes(layout: Layout, first: int, records: int) -> int:
    """Return the bytes of the index of a shard, before it is written."""
    starts = np.arange(records) * layout.record_bytes
    total = len(f"v1.2 {records}\n")
    for member in layout.members:
        offsets = starts + layout.places[member.name]
        digits = np.searchsorted(_TENS, offsets, side="right") + 1
        # EXTENSION OFFSET SIZE KEY.EXTENSION, and a blank or a line's end.
        extension = len(f"{member.name}.{ENDING}")
        each = 2 * extension + len(str(member.bytes)) + len(key_of(first)) + 5
        total += int(digits.sum()) + records * each
    return total


def write_feature_manifest(
    root: Path, request: Mapping[str, Any], content: Mapping[str, Any], *, complete: bool
) -> None:
    """Write `manifest.json` of a folder of features, whole or not at all."""
    values = {
        "version": VERSION,
        "kind": "features",
        "complete": complete,
        "request": request,
        "streams": content,
    }
    write_text(root / FILE, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def load_feature_manifest(root: Path) -> dict[str, Any]:
    """Read the manifest of a folder of features.

    Raises FileNotFoundError where there is none and ValueError where it is something else's.
    """
    return load_made(root, "features", VERSION, _MANIFEST, remedy=REMEDY, verb="features")


_SHARD = fields(
    {
        "tar": tar_name("[a-z]{1,32}"),
        "first": number(),
        "records": number(1),
        "bytes": number(0, LARGEST),
        "sha256": hexadecimal,
    }
)
_STREAM = fields(
    {
        "samples": number(1),
        "views": number(1),
        "layout": LAYOUT,
        "shards": list_of(_SHARD),
    },
    open=True,
)
_MANIFEST = fields(
    {"complete": flag, "request": plain_object, "streams": mapping(_STREAM)}, open=True
)


class FeatureRecords:
    """The records of one stream, by place; files are opened as they are first needed.

    Raises ValueError where a shard is missing, has another size, or leaves a place out.
    """

    def __init__(self, root: Path, stream: Mapping[str, Any]) -> None:
        self.root = root
        self.samples, self.views = stream["samples"], stream["views"]
        self.layout = Layout.from_plain(stream["layout"])
        self._shards = [FeatureShard(**shard) for shard in stream["shards"]]
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()
        self._each = self._shards[0].records if self._shards else 1
        place = 0
        for shard in self._shards:
            path, size = root / shard.tar, self.layout.tar_bytes(shard.records)
            if not path.is_file() or path.stat().st_size != shard.bytes or shard.bytes != size:
                raise ValueError(f"{path} is missing or was changed: {AGAIN}")
            if shard.first != place or place % self._each:
                raise ValueError(f"{root / FILE} is damaged (a shard is missing): {REMEDY}")
            place += shard.records
        if place != len(self):
            raise ValueError(f"{root / FILE} is damaged ({place} records of {len(self)}): {REMEDY}")

    def __len__(self) -> int:
        return self.samples * self.views

    def read(self, place: int) -> dict[str, np.ndarray]:
        """Return the arrays of a record. Raises ValueError naming a shard that was changed."""
        shard = self._shards[place // self._each]
        size = self.layout.record_bytes
        data = os.pread(self._file(shard), size, (place - shard.first) * size)
        try:
            if len(data) != size:
                raise ValueError("it ends too early")
            return self.layout.read(memoryview(data), key_of(place))
        except ValueError as error:
            raise ValueError(f"{self.root / shard.tar} was changed ({error}): {AGAIN}") from None

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _file(self, shard: FeatureShard) -> int:
        with self._lock:
            if shard.tar not in self._files:
                self._files[shard.tar] = os.open(self.root / shard.tar, os.O_RDONLY | os.O_CLOEXEC)
            return self._files[shard.tar]
