"""The page of `warpseg diagnose data`."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from ....shards import Sample
from ....shards.archive import write_text
from ...drawing import contact_sheet
from ..page import document, html_table, note
from .data import DataReport
from .embedding import embedded

MOST_DRAWN = 12
"""Pairs of images that are drawn."""


def write_page(report: DataReport, out: Path) -> None:
    """Write OUT/data.html."""
    said = report.said or ["Nothing stands out."]
    items = "".join(f"<li>{escape(sentence[:1].upper() + sentence[1:])}.</li>" for sentence in said)
    parts = [
        "<h1>The data set</h1>",
        note(str(report.dataset.root)),
        f"<ul>{items}</ul>",
        "<h2>Classes</h2>",
        html_table(*report.class_cells()),
        note(
            "Shares of the labeled pixels of each part. In crops: the same in what the recipe "
            "trains on. Crops that show it: of the crops of images that show the class. Pixels "
            "in a crop: their median where there are any."
        ),
        "<h2>Sizes</h2>",
        html_table(("part", "height x width", "images"), report.size_rows()),
        "<h2>Crops</h2>" if report.crops else "",
        *(f"<p>{escape(line)}</p>" for line in report.crop_lines()),
        note(f"Crops of recipe {report.recipe}.") if report.crops else "",
        "<h2>Trained on and scored on</h2>",
        note(
            f"{report.alike_pairs} pairs of images look alike, by their pixels on 16 x 16 cells"
            + (f"; the first {MOST_DRAWN}, all: alike.csv." if report.alike_pairs else ".")
        ),
        _pairs(report),
    ]
    write_text(out / "data.html", document("The data set", parts))


def _pairs(report: DataReport) -> str:
    figures = []
    for pair in report.alike[:MOST_DRAWN]:
        names = f"{pair.trained.name} | {pair.scored.name}"
        mirrored = ", mirrored" if pair.mirrored else ""
        row = [_picture(pair.trained), _picture(pair.scored)]
        sheet = contact_sheet([row], ("trained on", "scored on"), width=280)
        figures.append(
            f"<p>{escape(names)} ({pair.correlation:.3f}{mirrored})</p>{embedded(sheet)}"
        )
    return "\n".join(figures)


def _picture(sample: Sample) -> np.ndarray:
    image = Image.fromarray(sample.read_shown())
    image.thumbnail((560, 560))
    return np.asarray(image)
