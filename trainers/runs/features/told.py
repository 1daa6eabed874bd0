"""What is told of a folder of features."""

from collections.abc import Mapping
from typing import Any

from ....plain import counted

GIB = 2**30


def size_words(size: int) -> str:
    """Return bytes in GiB, MiB or KiB."""
    for unit, name in ((GIB, "GiB"), (2**20, "MiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1024:.1f} KiB"


def table_words(manifest: Mapping[str, Any]) -> str:
    """Return what a folder of features holds, a line for each stream, and what storing cost."""
    lines = []
    for name, stream in manifest["streams"].items():
        total = size_words(sum(shard["bytes"] for shard in stream["shards"]) or stream["bytes"])
        told = f"{name:<10} {counted(stream['samples'], 'image')} x "
        told += f"{counted(stream['views'], 'view')}, {total}"
        if stream["errors"]:
            worst = max(error["relative"] for error in stream["errors"])
            told += f", error {worst:.2%} of the features (root mean square, worst level)"
        lines.append(told)
    return "\n".join(lines)
