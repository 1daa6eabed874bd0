"""The page of a comparison: the table, curves by method, and the same images under each method."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from ...shards import Dataset, Sample
from ...shards.bands.shown import as_picture
from ..drawing import contact_sheet, overlay
from ..engine.runtime import open_runtime
from ..runs.kept.opening import open_trained
from ..scoring.inference import evaluating
from .comparison import HEADINGS, Comparison
from .page import class_table, colour_key, colours_of, curve_charts, document, html_table, note
from .pictures import OPACITY, embedded, label_image


def page(comparison: Comparison, drawn: Image.Image | None = None) -> str:
    """Return the HTML text of a comparison, with its pictures where they were drawn."""
    names = comparison.names()
    colours = dict(zip(names, colours_of(len(names)), strict=True))
    runs = [(recipe, run) for recipe, some in comparison.runs.items() for run in some]
    facts = comparison.circumstances()
    first = next(iter(names.values()))
    parts = [
        "<h1>WarpSeg comparison</h1>",
        note(f"{facts['data']}, split {facts['split']}; labels made by: {facts['evaluation']}"),
        html_table(HEADINGS, comparison.cells()),
        note(
            "score: mean of the last step's over the seeds, ± their sample deviation; difference: "
            f"to {first}, in points; seconds: training of one run"
        ),
        "<h2>Curves, one a seed</h2>",
        colour_key(list(names.values()), list(colours.values())),
        curve_charts(
            [run for _, run in runs],
            [f"{names[recipe]}, {run.name}" for recipe, run in runs],
            [colours[recipe] for recipe, _ in runs],
        ),
    ]
    if drawn is not None:
        parts += ["<h2>The same validation images under each method</h2>", _wide(drawn)]
    headings, rows = comparison.groups_table()
    if rows:
        parts += ["<h2>Groups of images</h2>", html_table(headings, rows)]
    parts.append(class_table([(names[r], comparison.class_iou(r)) for r in comparison.runs]))
    return document("WarpSeg comparison", parts)


def pictures(
    comparison: Comparison, dataset: Dataset, count: int, device: str = "auto"
) -> Image.Image:
    """Draw validation images, evenly chosen: true mask, then each method's at its first seed."""
    samples = _evenly(dataset.subset("val").samples(), count)
    images = [sample.read_image() for sample in samples]
    shown = [as_picture(image, dataset.manifest.channels) for image in images]
    columns = [shown, [sample.read_mask() for sample in samples]]
    runtime = open_runtime(device)
    for runs in comparison.runs.values():
        trained = open_trained(runs[0].path)
        network = runtime.place(trained.network)
        with evaluating(network):
            columns.append(
                [
                    label_image(trained, network, image, runtime.device, runtime.dtype)
                    for image in images
                ]
            )
    rows = [
        [row[0], *(overlay(row[0], mask, dataset.palette, OPACITY) for mask in row[1:])]
        for row in zip(*columns, strict=True)
    ]
    titles = ["image", "true mask", *comparison.names().values()]
    return contact_sheet(rows, titles, width=240, classes=dataset.classes, palette=dataset.palette)


def _evenly(samples: Sequence[Sample], count: int) -> list[Sample]:
    count = min(count, len(samples))
    return [samples[number * len(samples) // count] for number in range(count)]


def _wide(picture: Image.Image) -> str:
    return f'<div class="wide">{embedded(picture, "predictions")}</div>'
