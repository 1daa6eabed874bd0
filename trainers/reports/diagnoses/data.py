"""What a data set is like, and what a recipe makes of it: images that are there twice, classes,
sizes, crops; with a sentence for each thing that is worth knowing.

OUT/data.html      findings, tables and pictures
OUT/data.json      the same as plain values
OUT/alike.csv      images that are trained on and scored on as well, or nearly
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ....pipelines.settings import GeometrySettings
from ....shards import Dataset, Sample
from ....shards.archive import write_text
from ....shards.sense import class_counts, findings
from ...tables import format_table, percent
from .crops import CropReport, look_at_crops
from .likeness import Alike, find_alike
from .masks import csv_text

TRAINED, SCORED = ("train", "unlabeled"), ("val", "test")
COLUMNS = ("trained", "scored", "correlation", "mirrored")
LOST, SEEN, EMPTY, SQUASHED, TINY = 0.25, 0.1, 0.25, 1.1, 16
"""Of a class, share of its images' crops that show it, and pixels in those; of crops, share of the
image, and of padding; stretch of one side: from where on they are worth a sentence."""


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What was found; `pixels` are those of each class by subset, ignored ones last."""

    dataset: Dataset
    recipe: str
    geometry: GeometrySettings | None
    alike: Sequence[Alike]
    alike_pairs: int
    alike_scored: int
    pixels: dict[str, np.ndarray]
    sizes: dict[str, Counter[tuple[int, int]]]
    crops: CropReport | None
    said: list[str] = field(default_factory=list)

    def class_rows(self) -> list[dict[str, Any]]:
        """Return a row of plain values for each class: shares of 1."""
        rows = []
        for number, name in enumerate(self.dataset.classes):
            row: dict[str, Any] = {"class": name}
            for subset, counts in self.pixels.items():
                row[subset] = float(counts[number] / max(counts[:-1].sum(), 1))
            if self.crops is not None:
                row["in_crops"] = float(self.crops.crop_pixels[number])
                row["crops_that_show_it"] = _number(self.crops.kept[number])
                row["pixels_in_a_crop"] = _number(self.crops.size[number])
            rows.append(row)
        return rows

    def class_cells(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and cells of the classes; shares in percent."""
        headings = ["class", *(f"{subset} %" for subset in self.pixels)]
        if self.crops is not None:
            headings += ["in crops %", "crops that show it %", "pixels in a crop"]
        cells = []
        for row in self.class_rows():
            line = [row["class"], *(percent(row[subset]) for subset in self.pixels)]
            if self.crops is not None:
                size = row["pixels_in_a_crop"]
                line += [percent(row["in_crops"]), percent(row["crops_that_show_it"])]
                line.append("-" if size is None else f"{size:.0f}")
            cells.append(line)
        return headings, cells

    def size_rows(self) -> list[tuple[str, str, str]]:
        """Return subset, height x width and images of the commonest sizes."""
        return [
            (subset, f"{size[0]} x {size[1]}", str(count))
            for subset, sizes in self.sizes.items()
            for size, count in sizes.most_common(5)
        ]

    def crop_lines(self) -> list[str]:
        """Return in words what crops show."""
        if self.crops is None or self.geometry is None:
            return []
        height, width = self.geometry.crop_size
        return [
            f"A crop of {height} x {width} shows {100 * self.crops.seen:.0f} % of its image; "
            f"{100 * self.crops.padding:.0f} % of it lies outside.",
            f"Images are brought to {self.crops.factor:.2f} of their height, and stretched by "
            f"{self.crops.squash:.2f} along one side (1: not at all).",
        ]

    def text(self) -> str:
        """Return everything as lines for a terminal."""
        lines = [*(f"- {sentence}" for sentence in self.said or ["nothing stands out"]), ""]
        lines += [format_table(*self.class_cells()), ""]
        lines += [format_table(("subset", "size", "images"), self.size_rows()), ""]
        return "\n".join([*lines, *self.crop_lines()])

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        crops = self.crops
        return {
            "data": str(self.dataset.root),
            "recipe": self.recipe,
            "findings": self.said,
            "alike_pairs": self.alike_pairs,
            "alike_scored": self.alike_scored,
            "classes": self.class_rows(),
            "sizes": [list(row) for row in self.size_rows()],
            "crops": crops
            and {
                "images": crops.images,
                "seen": crops.seen,
                "padding": crops.padding,
                "factor": crops.factor,
                "squash": crops.squash,
            },
        }

    def write(self, out: Path) -> None:
        """Write the lists into a folder."""
        rows = [
            {
                "trained": pair.trained.name,
                "scored": pair.scored.name,
                "correlation": round(pair.correlation, 4),
                "mirrored": pair.mirrored,
            }
            for pair in self.alike
        ]
        write_text(out / "alike.csv", csv_text(COLUMNS, rows))
        write_text(out / "data.json", json.dumps(self.to_json(), indent=1) + "\n")


def look_at_data(
    dataset: Dataset, recipe: str, geometry: GeometrySettings | None, *, samples: int = 200
) -> DataReport:
    """Look at a data set, and at what crops of a geometry (None: not at crops) make of it.

    samples: training images whose crops are drawn. Raises ValueError for a data set of images with
    a class as wholes.
    """
    if dataset.task != "segmentation":
        raise ValueError(
            f"{dataset.root} has classes of whole images; there are no masks to look at"
        )
    scored = _every(dataset, SCORED)
    alike, pairs, keys = find_alike(_every(dataset, TRAINED), scored)
    train = dataset.subset("train").samples()
    chosen = (
        [train[n * len(train) // samples] for n in range(samples)]
        if samples < len(train)
        else train
    )
    crops = look_at_crops(chosen, dataset.num_classes, geometry) if geometry else None
    report = DataReport(
        dataset=dataset,
        recipe=recipe,
        geometry=geometry,
        alike=alike,
        alike_pairs=pairs,
        alike_scored=len(keys),
        pixels=_pixels(dataset),
        sizes={s: Counter(x.size for x in dataset.subset(s).samples()) for s in dataset.subsets},
        crops=crops,
    )
    report.said.extend([*_alike_words(report, len(scored)), *_repeated_words(scored)])
    report.said.extend(findings(dataset.manifest))
    report.said.extend([*_size_words(report), *_crop_words(report), *_class_words(report)])
    return report


def _every(dataset: Dataset, names: Sequence[str]) -> list[Sample]:
    parts = (dataset.subset(name).samples() for name in names if name in dataset.subsets)
    return list(chain.from_iterable(parts))


def _pixels(dataset: Dataset) -> dict[str, np.ndarray]:
    records = dataset.manifest.subsets
    return {
        name: class_counts(record, dataset.num_classes)
        for name, record in records.items()
        if record.annotated
    }


def _alike_words(report: DataReport, scored: int) -> list[str]:
    if not scored:
        return ["there are no images to score on (val): convert with --val 0.2"]
    if not report.alike_pairs:
        return []
    first = report.alike[0]
    return [
        f"{report.alike_scored} of {scored} images that are scored on look like images that are "
        f"trained on ({first.scored.name} like {first.trained.name}): scores will be too good; "
        "divide by scene, camera or day, not by frame"
    ]


def _repeated_words(scored: list[Sample]) -> list[str]:
    """Say how many images that are scored on are like other ones of them."""
    _, _, keys = find_alike(scored, scored)
    if not keys:
        return []
    return [
        f"{len(keys)} of {len(scored)} images that are scored on look like others of them: the "
        "score rests on fewer images than that"
    ]


def _size_words(report: DataReport) -> list[str]:
    areas = [h * w for sizes in report.sizes.values() for h, w in sizes]
    ratios = [w / h for sizes in report.sizes.values() for h, w in sizes]
    said = []
    if max(areas) > 4 * min(areas):
        said.append(
            f"images differ in size, from {min(areas) / 1e6:.2f} to {max(areas) / 1e6:.2f} "
            "megapixels: --geometry.bound brings them to one scale"
        )
    if max(ratios) > 2 * min(ratios) and report.geometry and report.geometry.resize:
        said.append(
            "images differ in shape, and --geometry.resize brings all to one: use --geometry.bound"
        )
    return said


def _crop_words(report: DataReport) -> list[str]:
    crops, said = report.crops, []
    if crops is None:
        return []
    if crops.seen < SEEN:
        said.append(
            f"a crop shows {100 * crops.seen:.0f} % of its image: shrink images (--geometry.bound) "
            "or take larger crops (--geometry.crop-size)"
        )
    if crops.padding > EMPTY:
        said.append(
            f"{100 * crops.padding:.0f} % of a crop lies outside its image: take smaller crops "
            "(--geometry.crop-size) or enlarge images (--geometry.bound)"
        )
    if crops.squash > SQUASHED:
        said.append(
            f"images are stretched by {crops.squash:.2f} along one side: --geometry.resize None "
            "--geometry.bound SHORT LONG keeps their shape"
        )
    return said


def _class_words(report: DataReport) -> list[str]:
    """Return a sentence for each class that crops lose, or leave too small to learn."""
    said = []
    for row in report.class_rows() if report.crops else []:
        kept, size = row["crops_that_show_it"], row["pixels_in_a_crop"]
        if kept is not None and kept < LOST:
            said.append(
                f"{row['class']} is in {100 * kept:.0f} % of the crops of images that show it: "
                "larger crops, or images shrunk more, would keep it"
            )
        elif size is not None and size < TINY:
            said.append(
                f"{row['class']} has {size:.0f} pixels in a crop that shows it: larger images, or "
                "a network of a smaller stride, are needed to learn it"
            )
    return said


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
