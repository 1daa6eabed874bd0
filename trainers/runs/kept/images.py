"""How a run's network did on each validation image by itself: RUN/images.json."""

import json
from pathlib import Path
from typing import TypedDict

from ....plain import read_json
from ....shards.archive import write_text
from ...scoring.score import Score

FILE = "images.json"
"""Its name in a run's folder."""


class ImagesFile(TypedDict):
    """Content of images.json: mean IoU, a share of 1, of each key, the worst first."""

    step: int
    miou: dict[str, float]


def write_images(run: Path, step: int, score: Score) -> None:
    """Write the score of each image at a step; nothing where images have none of their own."""
    if score.each:
        worst_first = sorted(score.each.items(), key=lambda pair: (pair[1], pair[0]))
        content = {"step": step, "miou": dict(worst_first)}
        write_text(run / FILE, json.dumps(content, indent=0) + "\n")


def read_images(run: Path) -> dict[str, float]:
    """Return the mean IoU of each image by key; nothing where the run has recorded none. Raises
    ValueError for a damaged file."""
    file = run / FILE
    if not file.is_file():
        return {}
    return read_json(file, ImagesFile, "remove it: pictures are left out then")["miou"]
