"""A data set listed in a CSV file: columns image, mask and subset, paths beside the file.

A row without a mask is an unlabeled image; `subset` is train, val or unlabeled, train if left out.

warpseg convert csv pairs.csv DATA --plugin docs/examples/source.py --names road car sky
"""

import colorsys
import csv
from dataclasses import dataclass
from pathlib import Path

from warpseg.shards.masks.values import id_values
from warpseg.shards.registry import SOURCES
from warpseg.shards.source import Entry, Source


@dataclass(frozen=True, kw_only=True)
class CsvSettings:
    """What the masks' values mean."""

    names: tuple[str, ...]
    """Names of the classes; the masks hold their numbers, from 0, and 255 where nothing counts."""
    delimiter: str = ","
    """What stands between two columns."""


@SOURCES.register("csv")
def load_csv(root: Path, settings: CsvSettings) -> Source:
    """List the rows of a CSV file: columns image, mask and subset."""
    subsets: dict[str, list[Entry]] = {}
    with root.open(newline="") as file:
        for row in csv.DictReader(file, delimiter=settings.delimiter):
            if not row.get("image"):
                raise ValueError(f"{root} has a row without an image: fill the column 'image'")
            mask = row.get("mask") or None
            subset = row.get("subset") or ("train" if mask else "unlabeled")
            entry = Entry(name=row["image"], image=row["image"], mask=mask)
            subsets.setdefault(subset, []).append(entry)
    count = len(settings.names)
    colours = [colorsys.hsv_to_rgb(number / count, 0.7, 0.9) for number in range(count)]
    return Source(
        kind="csv",
        root=root.parent,
        classes=settings.names,
        palette=tuple((int(255 * r), int(255 * g), int(255 * b)) for r, g, b in colours),
        subsets=subsets,
        values=id_values(count),
    )
