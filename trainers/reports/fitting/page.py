"""The page of `warpseg fit`, for a reader who knows the images and no more."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ....shards import Dataset
from ...drawing import contact_sheet
from ...runs.fitting.amounts import clock
from ...runs.fitting.ledger import Ledger
from ...runs.kept.record import Run, load_run
from ..comparison import Comparison
from ..comparison_page import pictures
from ..diagnoses.embedding import embedded
from ..page import class_table, colour_key, colours_of, curve_charts, document, html_table, note
from .verdict import Verdict

HELD_OUT, PREDICTED = 6, 12
"""Images that are drawn: held-out ones, and ones without masks."""
COLUMNS = 3
"""Predictions side by side."""
NAMES = {"supervised": "from masks alone", "semi-supervised": "with images without masks"}
"""The runs, in words that need no explanation."""
FEW_STEPS, LOW = 500, 0.25
"""Steps, and mean IoU, below which a longer training is worth saying."""


def build_page(
    ledger: Ledger, dataset: Dataset, verdict: Verdict, runs: dict[str, Path], device: str
) -> str:
    """Return the HTML text. runs: their folders, "supervised" and "semi-supervised"."""
    loaded = {NAMES[name]: load_run(path) for name, path in runs.items()}
    drawn = pictures(Comparison({n: [r] for n, r in loaded.items()}), dataset, HELD_OUT, device)
    parts = [
        "<h1>What WarpSeg made of your images</h1>",
        f"<p><b>{escape(verdict.headline())}</b></p>",
        f"<p>{escape(verdict.explanation())}</p>",
        note(
            "Mean IoU: for each class, the pixels that mask and network both give it, divided by "
            "those that either does; then the mean over the classes. 100 % is a perfect match."
        ),
        *_effort(ledger, verdict),
        html_table(("", "images"), _counts(dataset)),
        *_remarks(ledger),
        "<h2>Held-out images: what the networks say, beside your masks</h2>",
        note("Neither network saw these images or masks while it learnt."),
        embedded(drawn, "held-out images"),
        class_table([(name, run.summary()["iou"]) for name, run in loaded.items()]),
        note("absent: no held-out mask shows the class and no network predicts it"),
        *_predictions(ledger, verdict),
        *_next(ledger, verdict, runs),
        "<details><summary>How they learnt, for those who know losses</summary>",
        *_curves(loaded),
        "</details>",
        "<h2>What was done, and the command for each step alone</h2>",
        _steps(ledger),
    ]
    return document("WarpSeg fit", parts)


def _counts(dataset: Dataset) -> list[tuple[str, str]]:
    words = {
        "train": "with masks, learnt from (train)",
        "val": "with masks, held out (val)",
        "unlabeled": "without masks (unlabeled)",
    }
    return [
        (words[name], str(len(dataset.subset(name)))) for name in words if name in dataset.subsets
    ]


def _effort(ledger: Ledger, verdict: Verdict) -> list[str]:
    """Return how long the networks learnt, and whether that is little."""
    steps = ledger.found("time")["steps"]
    batch = ledger.found("plan")["batch_size"]
    told = f"Each network learnt for {steps} steps, of {batch} images with masks each."
    best = max(verdict.supervised, verdict.semi_supervised)
    if steps < FEW_STEPS or best < LOW:
        told += " That is little: with a longer --budget both would be better, and tell more."
    return [f"<p>{told}</p>"]


def _remarks(ledger: Ledger) -> list[str]:
    """Return what the plan and the look at the data found worth saying."""
    said = [*ledger.found("plan")["remarks"], *ledger.found("look")]
    items = "".join(f"<li>{escape(text[:1].upper() + text[1:])}.</li>" for text in said)
    more = '<p class="note">More about the images: <a href="look/data.html">look/data.html</a></p>'
    return ["<h2>Worth knowing</h2>", f"<ul>{items}</ul>", more] if items else [more]


def _predictions(ledger: Ledger, verdict: Verdict) -> list[str]:
    found = ledger.steps.get("predict")
    if found is None:
        return []
    folder = ledger.folder / "predictions" / "overlays"
    files = sorted(folder.glob("*.jpg"))
    chosen = [files[n * len(files) // PREDICTED] for n in range(PREDICTED)]
    chosen = list(dict.fromkeys(chosen)) if files else []
    images = [_small(file) for file in chosen]
    rows = [images[start : start + COLUMNS] for start in range(0, len(images), COLUMNS)]
    sheet = contact_sheet(rows, [""] * COLUMNS, width=320)
    return [
        "<h2>Images without masks, labeled</h2>",
        note(
            f"{len(chosen)} of {len(files)}, by the network with the better score, "
            f"{NAMES[verdict.best]}. All of them: predictions/overlays; as masks: "
            "predictions/masks. Their originals: unlabeled."
        ),
        embedded(sheet, "predictions"),
    ]


def _small(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        picture.thumbnail((640, 640))
        return np.asarray(picture.convert("RGB"))


def _next(ledger: Ledger, verdict: Verdict, runs: dict[str, Path]) -> list[str]:
    best, mine = runs[verdict.best], shlex.quote(str(ledger.asked["mine"]))
    lines = [
        ("Label other images", f"warpseg predict {best} IMAGES --out labeled"),
        ("Take the network elsewhere", f"warpseg export {best} --out weights"),
        (
            "Into a labelling tool, to be corrected",
            f"warpseg predict {best} IMAGES --out labeled --out-format coco",
        ),
        ("Train for an hour", f"warpseg fit {mine} longer --budget 1h"),
    ]
    parts = ["<h2>What next</h2>", html_table(("to", "say"), lines)]
    if "suggest" in ledger.steps:
        parts.append(
            f'<p><a href="{escape(ledger.found("suggest"))}">Which images to label next</a></p>'
        )
    return parts


def _curves(loaded: dict[str, Run]) -> list[str]:
    names, colours = list(loaded), colours_of(len(loaded))
    return [
        note("Losses by step, the lower the better; those of two kinds do not compare."),
        colour_key(names, colours),
        curve_charts(list(loaded.values()), names, colours),
    ]


def _steps(ledger: Ledger) -> str:
    rows: Sequence[tuple[str, str, str]] = [
        (name, clock(step["seconds"]), step["command"]) for name, step in ledger.steps.items()
    ]
    return html_table(("step", "time", "command"), rows)


def plain_result(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict and its words as plain values."""
    return {**verdict.to_json(), "said": f"{verdict.headline()} {verdict.explanation()}"}
