"""Shards of features that are finished: each has a record beside it until the manifest has all."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ....plain import read_json
from ....shards.archive import sha256_of, write_text
from ....shards.features.encoding import Deviation
from ....shards.features.folder import FeatureShard, shard_name
from .planned import Planned


def write_record(
    out: Path, planned: Planned, number: int, shard: FeatureShard, errors: list[Deviation]
) -> None:
    """Write beside a shard what the manifest will say of it, and the errors of its encoding."""
    row = {**asdict(shard), "errors": [vars(error) for error in errors]}
    write_text(_record(out, planned, number), json.dumps(row))


def finished(out: Path, planned: Planned, number: int) -> dict[str, Any] | None:
    """Return the record of a shard that is whole, or None: a damaged one is made again."""
    try:
        row = read_json(_record(out, planned, number), dict[str, Any], "")
        shard = FeatureShard(**unmeasured(row))
    except (ValueError, TypeError, FileNotFoundError):
        return None
    tar = out / shard_name(planned.name, number)
    whole = shard.tar == tar.name and tar.with_suffix(".idx").is_file() and tar.is_file()
    return row if whole and tar.stat().st_size == shard.bytes else None


def is_whole(out: Path, row: Mapping[str, Any]) -> bool:
    """Tell whether a shard of the manifest, and its index, lie there as they were written."""
    tar = out / row["tar"]
    there = tar.is_file() and tar.with_suffix(".idx").is_file()
    return there and tar.stat().st_size == row["bytes"] and sha256_of(tar) == row["sha256"]


def unmeasured(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a shard as the manifest has it, without its errors."""
    return {name: value for name, value in row.items() if name != "errors"}


def joined(rows: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the errors of all shards together, with the relative one, level by level."""
    errors: list[Deviation] = [Deviation() for _ in rows[0]] if rows else []
    for row in rows:
        for error, values in zip(errors, row, strict=True):
            error.join(Deviation.from_plain(values))
    return [{**vars(error), "relative": error.relative} for error in errors]


def tidy(out: Path, streams: Iterable[Planned]) -> None:
    """Remove what finished features need no more, also after a kill in the midst of it."""
    for planned in streams:
        for number in range(planned.shards):
            _record(out, planned, number).unlink(missing_ok=True)
        for leftover in out.glob(f"{planned.name}-*.tmp"):
            leftover.unlink()


def _record(out: Path, planned: Planned, number: int) -> Path:
    return out / f"{planned.name}-{number:06d}.json"
