"""What each shard was made of, so that a change of any source file packs it again.

DATA/sources.json maps each shard to the stamp of its source files (path, size, and the exact times
of change of each) and to what was said of its samples. It is a note for the next conversion alone:
where it is missing or damaged, shards are packed again.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..archive import read_index, rows_of, sha256_of, write_text
from ..manifest import ShardRecord
from ..outside.files import LeftOut
from ..outside.text import fields, hexadecimal, list_of, mapping, number, read_json, text
from ..sample import parts_of_image
from ..source import Entry, Source

FILE = "sources.json"
_NOTES = mapping(fields({"stamp": hexadecimal, "remarks": mapping(list_of(lambda v: v, (2,)))}))


@dataclass(frozen=True)
class Note:
    """The stamp of a shard's source files, and remarks on its samples by kind."""

    stamp: str
    remarks: LeftOut = field(default_factory=LeftOut)


def stamp_of(source: Source, entries: Iterable[Entry]) -> str:
    """Return a sum over path, size and times of all files that some entries are made of.

    The time of the last change of the file itself (ctime) is among them: a corrected mask may come
    with an old time stamp of its own.
    """
    digest = hashlib.sha256()
    seen: set[Path] = set()
    for entry in entries:
        for file in source.files(entry):
            if file not in seen:
                seen.add(file)
                state = file.stat()
                name = str(file).removeprefix(str(source.root))
                words = (name, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
                digest.update("\0".join(map(str, words)).encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()


def load_notes(root: Path) -> dict[str, Note]:
    """Read `sources.json`; nothing where it cannot be read."""
    try:
        values = _NOTES(read_json(root / FILE, "it is not needed"))
        return {
            tar: Note(
                note["stamp"],
                LeftOut(
                    {
                        text(reason): (number()(count), text(first))
                        for reason, (count, first) in note["remarks"].items()
                    }
                ),
            )
            for tar, note in values.items()
        }
    except (ValueError, OSError):
        return {}


def save_notes(root: Path, notes: dict[str, Note]) -> None:
    """Write `sources.json`, whole or not at all."""
    values = {
        tar: {"stamp": note.stamp, "remarks": note.remarks.reasons} for tar, note in notes.items()
    }
    write_text(root / FILE, json.dumps(values, indent=1, sort_keys=True) + "\n")


def fault_of_shard(root: Path, record: ShardRecord) -> str:
    """Return what is wrong with a shard or its indexes in one sentence, or an empty string."""
    tar = root / record.tar
    try:
        if tar.stat().st_size != record.bytes or sha256_of(tar) != record.sha256:
            return (
                f"{tar} was changed after conversion (its SHA-256 is not the manifest's): run the "
                "same warpseg convert again"
            )
        return _fault_of_indexes(root, record)
    except (ValueError, OSError) as error:
        return str(error)


def _fault_of_indexes(root: Path, record: ShardRecord) -> str:
    tar = root / record.tar
    whole = read_index(root / record.index, record.bytes)
    images = read_index(root / record.image_index, record.bytes)
    if [key for key, _ in whole] != record.keys() or whole != rows_of(tar):
        wrong = record.index
    elif images != [(key, parts_of_image(parts)) for key, parts in whole]:
        wrong = record.image_index
    else:
        return ""
    return f"{root / wrong} does not list the samples of {tar}: run the same warpseg convert again"
