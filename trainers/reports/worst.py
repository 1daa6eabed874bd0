"""The validation images that runs do worst on: each beside its true mask and every run's labels."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from ... import IGNORE
from ...plain import one_line
from ...shards import Dataset, Sample
from ...shards.bands.shown import as_picture
from ..drawing import overlay
from ..engine.runtime import Runtime, open_runtime
from ..runs.kept.images import read_images
from ..runs.kept.opening import open_trained
from ..runs.kept.record import Run
from ..scoring.inference import evaluating
from ..tables import percent
from .page import colour_key, note
from .pictures import OPACITY, embedded, label_image

MOST_RUNS = 6
"""Runs whose labels are drawn; each is a network to load."""
THUMBNAIL = 240
"""Width of a picture in pixels."""


def worst_first(scores: Sequence[Mapping[str, float]]) -> list[tuple[str, float]]:
    """Return keys and mean scores of the images that all runs have scored, the worst first."""
    shared = set(scores[0]).intersection(*scores[1:]) if scores else set()
    means = {key: statistics.fmean(own[key] for own in scores) for key in shared}
    return sorted(means.items(), key=lambda pair: (pair[1], pair[0]))


def worst_images(
    runs: Sequence[Run], names: Sequence[str], count: int, device: str = "auto"
) -> str:
    """Return as HTML the `count` images with the least mean score over the runs: the pictures of
    the first runs that have the first one's data set, with their scores.

    What cannot be drawn (a data set or a network that is no more there) is said in a remark.
    """
    parts, told = [], [""]
    try:
        drawn = _open(runs, names, told)
        if drawn and count:
            parts = _figures(drawn, count, open_runtime(device))
    except (FileNotFoundError, ValueError, RuntimeError) as error:
        told.append(f"The worst images are not drawn: {one_line(error)}.")
    remarks = "".join(map(note, filter(None, told)))
    if not parts and not remarks:
        return ""
    return f'<h2 class="worst">Worst images</h2>{"".join(parts)}{remarks}'


@dataclass(frozen=True)
class _Column:
    """A run whose labels are drawn."""

    run: Run
    name: str
    scores: Mapping[str, float]


def _open(runs: Sequence[Run], names: Sequence[str], told: list[str]) -> list[_Column]:
    """Return the runs that can be drawn side by side; tell of those that are not."""
    scored = [
        _Column(run, name, scores)
        for run, name in zip(runs, names, strict=True)
        if run.setting("task") != "classification" and (scores := read_images(run.path))
    ]
    alike = [c for c in scored if c.run.settings["data"] == scored[0].run.settings["data"]]
    left = [c.name for c in (*(c for c in scored if c not in alike), *alike[MOST_RUNS:])]
    if left:
        told.append(f"Not drawn, as other data or too many: {', '.join(left)}.")
    return alike[:MOST_RUNS]


def _figures(columns: Sequence[_Column], count: int, runtime: Runtime) -> list[str]:
    """Return an element for each of the worst images, and the colours of the classes in them."""
    dataset = Dataset.open(columns[0].run.settings["data"])
    samples = {sample.key: sample for sample in dataset.subset("val").samples()}
    worst = worst_first([column.scores for column in columns])[:count]
    gone = [key for key, _ in worst if key not in samples]
    if gone:
        raise ValueError(f"{dataset.root} has no validation image {gone[0]} any more")
    chosen = [samples[key] for key, _ in worst]
    images = [sample.read_image() for sample in chosen]
    masks = [[sample.read_mask() for sample in chosen]]
    for column in columns:
        masks.append(_labels(column.run, images, runtime))
    palette = dataset.palette
    seen = sorted(set(np.unique(np.concatenate([m.ravel() for own in masks for m in own]))))
    known = [int(index) for index in seen if index != IGNORE]
    parts = [
        colour_key(
            [dataset.classes[i] for i in known], [_css(palette[i]) for i in known], block=True
        )
    ]
    for number, (sample, levels) in enumerate(zip(chosen, images, strict=True)):
        image = as_picture(levels, dataset.manifest.channels)
        cells = [_cell(image, "image")]
        titles = ["true mask", *(_title(c, sample) for c in columns)]
        for title, own in zip(titles, masks, strict=True):
            cells.append(_cell(overlay(image, own[number], palette, OPACITY), title))
        parts.append(f'<h3>{escape(sample.name)}</h3><div class="sheet">{"".join(cells)}</div>')
    return parts


def _labels(run: Run, images: Sequence[np.ndarray], runtime: Runtime) -> list[np.ndarray]:
    trained = open_trained(run.path)
    network = runtime.place(trained.network)
    with evaluating(network):
        return [
            label_image(trained, network, image, runtime.device, runtime.dtype) for image in images
        ]


def _title(column: _Column, sample: Sample) -> str:
    return f"{column.name}: {percent(column.scores[sample.key])}\u00a0%"


def _cell(pixels: np.ndarray, title: str) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL, 2 * THUMBNAIL))
    return (
        f"<figure>{embedded(picture, title, 'JPEG')}<figcaption>{escape(title)}</figcaption>"
        "</figure>"
    )


def _css(colour: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
