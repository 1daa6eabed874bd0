"""The most doubted masks as pictures: image, mask, what networks say, and where they doubt it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ....shards.archive import write_text
from ....shards.bands.shown import as_picture
from ...drawing import contact_sheet, legend, overlay, save_picture
from ...labels.doubts import Opinion, doubt_of
from ...runs.judging import Judges
from ..page import document, html_table, note
from .embedding import embedded
from .masks import MaskReport, Suspect

TITLES = ("image", "mask", "networks", "doubt")
WIDTH = 280
"""Width of each picture in pixels."""
BOX = (255, 230, 0)
MOST_ROWS = 200
"""Rows of the page's table; the CSV files hold all."""

Row = list[np.ndarray]


def write_page(report: MaskReport, judges: Judges, out: Path, count: int) -> None:
    """Write OUT/masks.html and OUT/masks.png with the `count` most doubted masks."""
    shown = report.suspects[:count]
    rows = {suspect.sample.key: row for suspect, row in draw_suspects(report, judges, shown)}
    palette, classes = report.dataset.palette, report.dataset.classes
    ordered = [rows[suspect.sample.key] for suspect in shown]
    if ordered:
        sheet = contact_sheet(ordered, TITLES, width=WIDTH, classes=classes, palette=palette)
        save_picture(sheet, out / "masks.png")
    parts = [
        "<h1>Masks that are probably wrong</h1>",
        f"<p>{escape(report.headline())}</p>",
        note(
            "Each row: image, its mask, what the networks say, and how much each pixel of the mask "
            "is doubted (red), with boxes around connected parts. Doubt is high where networks are "
            "sure of another class and rule the mask's class out, and counts the more, the rarer "
            "networks take the one for the other in the other images. A networks' error looks the "
            "same: the pictures are for a person to judge."
        ),
        embedded(legend(classes, palette, 4 * WIDTH)),
    ]
    for rank, (suspect, row) in enumerate(zip(shown, ordered, strict=True), start=1):
        parts.append(_figure(report, rank, suspect, row))
    parts += ["<h2>Regions</h2>", _regions(report), "<h2>Images</h2>", _images(report)]
    write_text(out / "masks.html", document("Masks that are probably wrong", parts))


def draw_suspects(
    report: MaskReport, judges: Judges, suspects: Sequence[Suspect]
) -> Iterator[tuple[Suspect, Row]]:
    """Yield the four pictures of each suspect; networks are asked again, as nothing was kept."""
    by_jury: dict[tuple[int, ...], list[Suspect]] = {}
    for suspect in suspects:
        by_jury.setdefault(suspect.members, []).append(suspect)
    palette = report.dataset.palette
    for members, some in by_jury.items():
        asked = judges.opinions([suspect.sample for suspect in some], members)
        for suspect, (levels, opinion) in zip(some, asked, strict=True):
            image = as_picture(levels, report.dataset.manifest.channels)
            row = [image]
            row += [overlay(image, ids, palette, 0.7) for ids in (opinion.mask, opinion.label)]
            yield suspect, [*row, _heat(image, opinion, suspect)]


def _heat(image: np.ndarray, opinion: Opinion, suspect: Suspect) -> np.ndarray:
    """Draw doubt in red over the grey image, and boxes around its regions."""
    grey = image.mean(2, keepdims=True) * 0.6 + 40
    doubt = doubt_of(opinion)[..., None]
    drawn = grey * (1 - doubt) + np.array([235, 30, 30]) * doubt
    picture = Image.fromarray(np.broadcast_to(drawn, image.shape).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    thick = max(round(image.shape[1] / 240), 1)
    for region in suspect.doubted.regions:
        box = (region.left, region.top)
        end = (region.left + region.width - 1, region.top + region.height - 1)
        draw.rectangle((*box, *end), outline=BOX, width=thick)
    return np.asarray(picture)


def _figure(report: MaskReport, rank: int, suspect: Suspect, row: Row) -> str:
    strip = contact_sheet([row], TITLES, width=WIDTH)
    out = " — stands out" if rank <= report.standing_out else ""
    seen = "" if suspect.held_out else "; judged by networks that learnt it"
    return (
        f"<h3>{rank}. {escape(suspect.sample.name)} (score {suspect.doubted.score:.2f}{out})</h3>"
        f"<p>{escape(report.why(suspect) + seen)}</p>{embedded(strip)}"
    )


def _regions(report: MaskReport) -> str:
    headings = (
        "rank",
        "image",
        "row, column",
        "height x width",
        "mask says",
        "networks say",
        "score",
    )
    rows = [
        (
            str(row["rank"]),
            row["name"],
            f"{row['top']}, {row['left']}",
            f"{row['height']} x {row['width']}",
            row["mask_says"],
            row["networks_say"],
            f"{row['score']:.3f}",
        )
        for row in report.region_rows()[:MOST_ROWS]
    ]
    more = (
        note(f"The first {MOST_ROWS}; all of them: regions.csv.") if rows[MOST_ROWS - 1 :] else ""
    )
    return html_table(headings, rows) + more if rows else note("None.")


def _images(report: MaskReport) -> str:
    rows = [
        (str(row["rank"]), row["name"], f"{row['score']:.3f}", report.why(suspect))
        for row, suspect in zip(report.image_rows()[:MOST_ROWS], report.suspects, strict=False)
    ]
    more = note(f"The first {MOST_ROWS}; all of them: masks.csv.") if rows[MOST_ROWS - 1 :] else ""
    return html_table(("rank", "image", "score", "why"), rows) + more
