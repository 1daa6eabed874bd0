"""Suggest which images of a pool to draw masks for next.

OUT/list.txt            their names, best first: `warpseg split --add` reads it
OUT/suggestions.json    with regions, numbers and reasons, and what they were made of
OUT/images/             the images, as the data set has them, to give to a labelling tool
OUT/labels/             what the first network says of them, for that tool (on request)
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .... import IGNORE
from ....pipelines.settings import LoaderSettings
from ....shards import Sample, Subset
from ....shards.archive import replacing, write_text
from ....shards.bands.bands import PLAIN
from ....shards.pseudo import quantize
from ...drawing import save_picture
from ...engine.processes.locking import LOCK, alone
from ...engine.processes.stopping import Stop, never
from ...engine.runtime import Runtime
from ...engine.settings import to_plain
from ...scoring.formats import FOLDER, Labels
from ...scoring.inference import evaluating
from ...scoring.trained import TrainedNetwork
from ..for_tools import sources_of
from ..predicted import predict_subset
from .asking import Run
from .choosing import Choice, choose
from .looking import Look, Region
from .scan import NAME as SCAN
from .settings import SuggestSettings
from .survey import survey
from .words import reason

log = logging.getLogger("warpseg")

LIST, MARKER, IMAGES = "list.txt", "suggestions.json", "images"
OURS = {LIST, MARKER, IMAGES, FOLDER, "sheet.png", "sheet.html", SCAN, LOCK}
"""What a folder of suggestions holds."""
SHOWN = 60
"""Suggestions that are drawn."""
PICTURE_EDGE = 480
"""Longest edge of a picture in pixels."""


@dataclass(frozen=True)
class Picture:
    """A small image, uint8 (H, W, 3), with its class ids and confidence in 255ths, uint8 (H, W),
    and where in it a region lies: top, left, height and width in its pixels."""

    image: np.ndarray
    label: np.ndarray
    confidence: np.ndarray
    region: tuple[int, int, int, int]


@dataclass(frozen=True)
class Suggestion:
    """An image, or a region of it, to draw next, by the name that the data set's source gave it;
    `picture` shows the first SHOWN of them."""

    name: str
    choice: Choice
    reason: str
    picture: Picture | None


def suggest_images(
    runs: Sequence[Run],
    pool: Subset,
    labeled: Subset | None,
    out: Path,
    settings: SuggestSettings,
    runtime: Runtime,
    *,
    loader: LoaderSettings | None = None,
    stop: Stop = never,
    draw: Callable[[Sequence[Suggestion]], None] = lambda made: None,
) -> list[Suggestion]:
    """Write suggestions into the folder `out` and return them, best first.

    runs: for each run its networks, the one that it answers with first. pool: images without masks;
    of `labeled` masks are read. draw: called with them before the folder counts as whole. Raises
    ValueError where `out` holds other files, for networks of other classes than the data set's, and
    for a pool that is empty; Stopped soon after `stop` tells so: the same call goes on.
    """
    _check(runs, pool)
    _check_target(out, settings.overwrite)
    loader = loader or LoaderSettings()
    started = time.perf_counter()
    with alone(out), ExitStack() as held:
        _check_target(out, settings.overwrite)
        for trained in chain.from_iterable(runs):
            runtime.place(trained.network)
            held.enter_context(evaluating(trained.network))
        _clear(out)
        known, looks = survey(
            runs, pool, labeled, settings, runtime, loader, file=out / SCAN, stop=stop
        )
        choices = choose(looks, known, settings)
        pictures = _label(runs[0][0], pool, choices, out, settings, runtime, loader)
        names = {sample.key: sample.name for sample in pool.samples()}
        made = [
            Suggestion(
                name=names[choice.look.key],
                choice=choice,
                reason=reason(choice, pool.dataset.classes, known, settings, names),
                picture=pictures.get(choice.look.name),
            )
            for choice in choices
        ]
        names_of_all = list(dict.fromkeys(suggestion.name for suggestion in made))
        write_text(out / LIST, "".join(f"{name}\n" for name in names_of_all))
        draw(made)
        content = _record(runs, pool, labeled, len(looks), made, settings)
        write_text(out / MARKER, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        (out / SCAN).unlink(missing_ok=True)
    seconds = time.perf_counter() - started
    log.info(f"{len(made)} suggestions from {len(pool)} images in {seconds:.1f} s: {out}")
    return made


def _check(runs: Sequence[Run], pool: Subset) -> None:
    for trained in chain.from_iterable(runs):
        if trained.classes != pool.dataset.classes:
            raise ValueError(
                f"a network knows {len(trained.classes)} classes, {pool.dataset.root} has others "
                f"({len(pool.dataset.classes)}): name runs that were trained for these"
            )
        if trained.task != "segmentation":
            raise ValueError(f"the network is for {trained.task}; suggest is for segmentation")
    if runs[0][0].evaluation.mode == "center_crop":
        raise ValueError(
            "evaluation mode center_crop sees only the middle of an image; suggest with "
            "--evaluation.mode whole or sliding"
        )
    if not len(pool):
        raise ValueError(f"{pool.dataset.root} has no {pool.name} images: all masks are drawn")


def _check_target(out: Path, overwrite: bool) -> None:
    """Raise ValueError where something in the output folder would be lost or mixed up; what was
    stopped half-way is made anew."""
    there = {file.name for file in out.iterdir()} if out.is_dir() else set()
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; choose a new folder")
    if {name.removesuffix(".tmp") for name in there} - OURS:
        raise ValueError(f"{out} holds other files; choose a new folder")
    if MARKER in there and not overwrite:
        raise ValueError(f"{out} holds suggestions already; choose a new folder or --overwrite")


def _clear(out: Path) -> None:
    """Remove earlier suggestions, what says that they are whole first, and what a kill left."""
    for name in (MARKER, f"{SCAN}.tmp", *sorted(OURS - {MARKER, SCAN, LOCK})):
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        else:
            (out / name).unlink(missing_ok=True)


def _label(
    trained: TrainedNetwork,
    pool: Subset,
    choices: Sequence[Choice],
    out: Path,
    settings: SuggestSettings,
    runtime: Runtime,
    loader: LoaderSettings,
) -> dict[tuple[str, int, int], Picture]:
    """Write the chosen images, and what a tool reads of them; return pictures of the first."""
    chosen: dict[str, list[Look]] = {}
    for choice in choices:
        chosen.setdefault(choice.look.key, []).append(choice.look)
    shown = {choice.look.name for choice in choices[:SHOWN]}
    subset = pool.only(chosen)
    samples = {sample.key: sample for sample in subset.samples()}
    sources = sources_of(samples.values(), out / IMAGES, packed=True)
    labels = Labels(trained, list(sources.values()), out, settings)
    pictures: dict[tuple[str, int, int], Picture] = {}
    for made in predict_subset(trained, subset, trained.evaluation, runtime, loader):
        sample, looks, level = samples[made.key], chosen[made.key], quantize(made.confidence)
        _write_image(sample, sources[made.key].path)
        labels.add(sources[made.key].name, _within(made.label, looks, settings), level)
        wanted = [look for look in looks if look.name in shown]
        if wanted:
            image = sample.read_shown()
            for look in wanted:
                pictures[look.name] = _picture(image, made.label, level, look.region)
    labels.close()
    return pictures


def _write_image(sample: Sample, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if sample.extension == "npy" and sample.bands == PLAIN:
        save_picture(Image.fromarray(sample.read_image()), path)
    else:
        with replacing(path) as file:
            file.write(sample.read(sample.extension))


def _within(label: np.ndarray, looks: Sequence[Look], settings: SuggestSettings) -> np.ndarray:
    """Return class ids where regions lie, and nothing to draw elsewhere."""
    if not settings.regions:
        return label
    inside = np.full_like(label, IGNORE)
    for region in (look.region for look in looks):
        rows = slice(region.top, region.top + region.height)
        columns = slice(region.left, region.left + region.width)
        inside[rows, columns] = label[rows, columns]
    return inside


def _picture(image: np.ndarray, label: np.ndarray, level: np.ndarray, region: Region) -> Picture:
    height, width = label.shape
    scale = min(1.0, PICTURE_EDGE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = [
        np.asarray(Image.fromarray(values).resize(size, how))
        for values, how in (
            (image, Image.Resampling.BOX),
            (label, Image.Resampling.NEAREST),
            (level, Image.Resampling.BOX),
        )
    ]
    place = (region.top, region.left, region.height, region.width)
    top, left, tall, wide = (round(length * scale) for length in place)
    return Picture(small[0], small[1], small[2], (top, left, tall, wide))


def _record(
    runs: Sequence[Run],
    pool: Subset,
    labeled: Subset | None,
    candidates: int,
    made: Sequence[Suggestion],
    settings: SuggestSettings,
) -> dict[str, Any]:
    """Return what suggestions.json says."""
    return {
        "data": str(Path(pool.dataset.root).resolve()),
        "split": pool.split,
        "pool": len(pool),
        "labeled": 0 if labeled is None else len(labeled),
        "candidates": candidates,
        "networks": [[dict(trained.origin) for trained in run] for run in runs],
        "evaluation": to_plain(runs[0][0].evaluation),
        "settings": to_plain(settings),
        "suggestions": [_row(s, pool.dataset.classes) for s in made],
    }


def _row(suggestion: Suggestion, classes: Sequence[str]) -> dict[str, Any]:
    look, choice = suggestion.choice.look, suggestion.choice
    gains = {name: round(float(g), 6) for name, g in zip(classes, choice.gains, strict=True)}
    return {
        "image": suggestion.name,
        "key": look.key,
        "region": asdict(look.region),
        "reason": suggestion.reason,
        "value": round(choice.value, 6),
        "gain_by_class": gains,
        "distance": round(choice.distance, 4),
        "stands_for": round(choice.stands_for, 4),
        "entropy": round(look.entropy, 4),
        "disagreement": round(look.disagreement, 4),
        "confidence": round(look.confidence, 4),
        "others_differ": round(look.differs[0], 4),
        "views_differ": round(look.differs[1], 4),
        "runs_differ": round(look.differs[2], 4),
    }
