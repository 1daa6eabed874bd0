"""Masks that are probably wrong, ranked: images and regions, as tables and files.

OUT/masks.html      the most doubted masks, each with image, mask, prediction and doubt
OUT/masks.png       the same as one picture
OUT/masks.csv       all images, the most doubted first
OUT/regions.csv     all regions, the most doubted first
OUT/masks.json      both, and what they were made of
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ....plain import printable
from ....shards import Dataset, Sample
from ....shards.archive import write_text
from ...labels.doubts import Doubted, Doubts, Region, stands_out
from ...runs.judging import Judges
from ...tables import format_table, percent

IMAGE_COLUMNS = (
    *("rank", "name", "key", "score", "stands_out", "doubted_share"),
    *("mask_says", "networks_say", "held_out", "regions"),
)
REGION_COLUMNS = (
    *("rank", "name", "key", "score", "doubted_share"),
    *("top", "left", "height", "width", "mask_says", "networks_say"),
)


@dataclass(frozen=True)
class Suspect:
    """An image, how much its mask is doubted, and by which networks."""

    sample: Sample
    doubted: Doubted
    members: tuple[int, ...]
    held_out: bool


@dataclass(frozen=True)
class MaskReport:
    """All images of a subset, the most doubted first."""

    dataset: Dataset
    subset: str
    suspects: Sequence[Suspect]
    standing_out: int
    """how many of the first are outliers"""

    def unseen(self) -> int:
        """Return how many masks were judged by networks that did not learn them."""
        return sum(suspect.held_out for suspect in self.suspects)

    def headline(self) -> str:
        """Return what was found in one sentence or two."""
        total, learnt = len(self.suspects), len(self.suspects) - self.unseen()
        told = f"{self.standing_out} of {total} masks of {self.subset} stand out"
        if not learnt:
            return f"{told}, judged by networks that were not trained on them."
        hint = (
            ": train on halves (warpseg split DATA half --labeled 1.0 --pair 0.5), and name both"
            if learnt > total / 10
            else ""
        )
        return (
            f"{told}; {learnt} of {total} were judged by networks that were trained on them, which "
            f"hides errors{hint}."
        )

    def why(self, suspect: Suspect) -> str:
        """Return in words what speaks against a mask."""
        pair = suspect.doubted.pair
        if pair is None:
            return "nothing unusual"
        given, predicted = (self.dataset.classes[number] for number in pair)
        return (
            f"the mask says {given}, the networks {predicted}; "
            f"{100 * suspect.doubted.share:.1f} % of its pixels in doubt"
        )

    def regions(self) -> list[tuple[Suspect, Region]]:
        """Return all regions, the most doubted first."""
        every = [
            (suspect, region) for suspect in self.suspects for region in suspect.doubted.regions
        ]
        return sorted(every, key=lambda entry: -entry[1].score)

    def image_rows(self) -> list[dict[str, Any]]:
        """Return a row of plain values for each image, by IMAGE_COLUMNS."""
        rows = []
        for rank, suspect in enumerate(self.suspects, start=1):
            doubted = suspect.doubted
            names = [self.dataset.classes[n] for n in doubted.pair] if doubted.pair else ["", ""]
            values = (
                *(rank, suspect.sample.name, suspect.sample.key, round(doubted.score, 5)),
                *(rank <= self.standing_out, round(doubted.share, 5), *names),
                *(suspect.held_out, len(doubted.regions)),
            )
            rows.append(dict(zip(IMAGE_COLUMNS, values, strict=True)))
        return rows

    def region_rows(self) -> list[dict[str, Any]]:
        """Return a row of plain values for each region, by REGION_COLUMNS; boxes in pixels."""
        rows = []
        for rank, (suspect, region) in enumerate(self.regions(), start=1):
            values = (
                *(rank, suspect.sample.name, suspect.sample.key, round(region.score, 5)),
                *(round(region.share, 5), region.top, region.left, region.height, region.width),
                *(self.dataset.classes[n] for n in (region.given, region.predicted)),
            )
            rows.append(dict(zip(REGION_COLUMNS, values, strict=True)))
        return rows

    def table(self, count: int) -> str:
        """Return the first images as lines for a terminal."""
        headings = ("rank", "image", "score", "in doubt %", "mask says", "networks say")
        rows = [
            (
                str(row["rank"]),
                printable(row["name"]),
                f"{row['score']:.3f}",
                percent(row["doubted_share"]),
                row["mask_says"] or "-",
                row["networks_say"] or "-",
            )
            for row in self.image_rows()[:count]
        ]
        return format_table(headings, rows)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "data": str(self.dataset.root),
            "subset": self.subset,
            "images": len(self.suspects),
            "held_out": self.unseen(),
            "stand_out": self.standing_out,
            "masks": self.image_rows(),
            "regions": self.region_rows(),
        }

    def write(self, out: Path) -> None:
        """Write the lists into a folder."""
        write_text(out / "masks.csv", csv_text(IMAGE_COLUMNS, self.image_rows()))
        write_text(out / "regions.csv", csv_text(REGION_COLUMNS, self.region_rows()))
        write_text(out / "masks.json", json.dumps(self.to_json(), indent=1) + "\n")


def look_at_masks(judges: Judges, dataset: Dataset, subset: str) -> MaskReport:
    """Rank the masks of a subset. Memory does not grow with the pixels of all images.

    Raises as `Judges.juries`, and where a network returns no finite numbers.
    """
    doubts, seen = Doubts(dataset.num_classes), []
    juries = judges.juries(dataset, subset)
    total = sum(len(jury.subset) for jury in juries)
    with tqdm(total=total, unit="image", disable=None) as progress:
        for jury in juries:
            samples = jury.subset.samples()
            for _, opinion in judges.opinions(samples, jury.members):
                doubts.add(opinion)
                progress.update()
            seen += [(sample, jury.members, jury.held_out) for sample in samples]
    suspects = [
        Suspect(seen[doubted.number][0], doubted, *seen[doubted.number][1:])
        for doubted in doubts.ranking()
    ]
    scores = [suspect.doubted.score for suspect in suspects]
    return MaskReport(dataset, subset, suspects, stands_out(scores))


def csv_text(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    """Return rows as CSV with a heading."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
