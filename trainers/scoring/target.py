"""The folder that predictions go into: what it may hold, and what it says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from ...plain import read_json
from ...shards.archive import write_text
from ..engine.processes.locking import LOCK
from ..engine.settings import to_plain
from .formats import FOLDER
from .image_files import MARKER, Source
from .trained import TrainedNetwork

OURS = {MARKER, f"{MARKER}.tmp", LOCK, "masks", "overlays", "confidence", FOLDER}
"""What a folder of predictions holds, whatever became of the marker."""


class _Marker(TypedDict):
    """Of predictions.json, what the next call asks for."""

    complete: bool


def check_target(out: Path, overwrite: bool) -> None:
    """Raise ValueError where something in the output folder would be lost or mixed up.

    Predictions that were stopped half-way, even while their marker was written, may be made again.
    """
    there = {file.name for file in out.iterdir()} - {LOCK} if out.is_dir() else set()
    if not there - {f"{MARKER}.tmp"}:
        return
    marker = out / MARKER
    if not marker.is_file():
        raise ValueError(f"{out} holds other files; choose a new folder")
    try:
        complete = read_json(marker, _Marker, "it is written anew")["complete"]
    except ValueError:
        complete = False
        if there - OURS:
            raise ValueError(f"{out} holds other files; choose a new folder") from None
    if complete and not overwrite:
        raise ValueError(f"{out} holds predictions already; choose a new folder or --overwrite")


def write_marker(
    out: Path,
    trained: TrainedNetwork,
    sources: list[Source],
    skipped: list[str],
    frames: Mapping[Source, int],
    *,
    complete: bool,
) -> None:
    """Write what the predictions are of, and by what: at first not `complete`, then so, with the
    number of frames of each video."""
    content: dict[str, Any] = {
        "complete": complete,
        "network": trained.name,
        "origin": dict(trained.origin),
        "evaluation": to_plain(trained.evaluation),
        "classes": trained.classes,
        "palette": trained.palette,
        "images": {source.name: source.shown for source in sources},
        "skipped": skipped,
    }
    if frames:
        content["videos"] = {
            film.name: {"file": str(film.path), "frames": count} for film, count in frames.items()
        }
    write_text(out / MARKER, json.dumps(content, indent=1) + "\n")
