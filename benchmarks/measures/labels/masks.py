"""Spoiled masks found again: `warpseg diagnose masks` beside cleanlab on the same predictions.

    warpseg bench masks DATA --work FOLDER [--seed 0] [--steps 300] [--out FILE.json]

The training masks of a data set are brought to a small size, and a share of them is spoiled:
classes swapped, masks shifted, holes (spoiling.py). Two runs learn a half each and judge the other
half, so every mask is judged by a network that did not learn it; the one that lies in both halves
where their number is odd is left out. The judged masks are then spoiled anew with other seeds,
which the networks never saw. Average precision: of all masks, those that were spoiled are to be
found. Memory: the most that NumPy and Python hold while masks are ranked from a file of
probabilities. What the folder of work holds already is not made again: begin with an empty one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image

from ....shards import Dataset, Sample
from ....shards.conversion.named import convert
from ....shards.splits.choosing import choose_fraction, difference_maximised
from ....shards.splits.writing import write_split
from ....trainers.engine.runtime import open_runtime
from ....trainers.recipes.changes import change_recipe
from ....trainers.runs.judging import open_judges
from ....trainers.runs.start import start
from ...contenders.mask_ranking import Ranked, average_precision, cleanlab, ours
from ...spoiling import KINDS, choose_spoiled, spoil
from ...tables import MiB, Result, Table, result_of, write
from ...words.given import Given
from ...words.labels import MasksSettings

HALVES = ("half-a", "half-b")


@dataclass(frozen=True)
class _Judged:
    """Names and clean masks, uint8 (N, H, W), of the images that are ranked."""

    names: Sequence[str]
    clean: np.ndarray
    probabilities: Path
    num_classes: int


def masks(given: Given) -> int:
    """Run `warpseg bench masks`."""
    settings: MasksSettings = given.settings
    spoiled = make_spoiled(settings)
    runs = [train_half(settings, spoiled, half) for half in HALVES]
    judged = predict_all(settings, spoiled, runs)
    content = measure(settings, judged)
    device = torch.device("cuda" if open_runtime(settings.device).device.type == "cuda" else "cpu")
    result = result_of("masks", given.arguments, device, content)
    print("\n\n".join(table.text() for table in tables(result)))
    write(result, settings.out)
    return 0


def make_spoiled(settings: MasksSettings) -> Dataset:
    """Convert the training images at a small size, with spoiled masks, and halve them."""
    folder = settings.work / "spoiled"
    if not (folder / "data" / "manifest.json").is_file():
        dataset = Dataset.open(settings.data)
        samples = dataset.subset("train").samples()
        kinds = choose_spoiled([_stem(s) for s in samples], settings.share, settings.seed)
        for sample in samples:
            mask, name = _small_mask(sample, settings.size), _stem(sample)
            _save(Image.fromarray(mask), folder / "clean" / f"{name}.png")
            if name in kinds:
                mask = spoil(mask, kinds[name], name, settings.seed)
            _save(_small_image(sample, settings.size), folder / "mine" / "images" / f"{name}.png")
            _save(Image.fromarray(mask), folder / "mine" / "masks" / f"{name}.png")
        rows = zip(dataset.classes, dataset.palette, strict=True)
        lines = [f"{name} {' '.join(map(str, colour))}" for name, colour in rows]
        (folder / "mine" / "classes.txt").write_text("\n".join(lines) + "\n")
        convert("folder", folder / "mine", folder / "data")
    spoiled = Dataset.open(folder / "data")
    halves = difference_maximised(
        choose_fraction(spoiled, "1.0", settings.seed), 0.5, settings.seed
    )
    for half, choice in zip(HALVES, halves, strict=True):
        write_split(spoiled, half, choice)
    return spoiled


def train_half(settings: MasksSettings, spoiled: Dataset, half: str) -> Path:
    """Train on a half, where that was not done, and return the run's folder."""
    out = settings.work / half
    words = ["--num-steps", str(settings.steps), "--seed", str(settings.seed)]
    start(
        change_recipe(settings.recipe, words),
        data=spoiled.root,
        out=out,
        split=half,
        resume=True,
        device=settings.device,
        recipe=settings.recipe,
    )
    return out


def predict_all(settings: MasksSettings, spoiled: Dataset, runs: Sequence[Path]) -> _Judged:
    """Write the probabilities of all masks by the run that did not learn them."""
    judges = open_judges(runs, open_runtime(settings.device))
    juries = [jury for jury in judges.juries(spoiled, "train") if jury.held_out]
    samples = [(s, jury.members) for jury in juries for s in jury.subset.samples()]
    file = settings.work / "probabilities.npy"
    shape = (len(samples), spoiled.num_classes, *settings.size)
    stored = np.lib.format.open_memmap(file, "w+", np.float32, shape)
    for number, (sample, members) in enumerate(samples):
        stored[number] = judges.probabilities(sample.read_image(), members)
    stored.flush()
    names = [PurePosixPath(sample.name).stem for sample, _ in samples]
    clean = [np.array(Image.open(settings.work / "spoiled/clean" / f"{n}.png")) for n in names]
    return _Judged(names, np.stack(clean), file, spoiled.num_classes)


def measure(settings: MasksSettings, judged: _Judged) -> dict[str, Any]:
    """Rank the judged masks under each spoiling; return a row for each ranking and spoiling."""
    rows = []
    for seed in range(settings.seed, settings.seed + settings.spoilings):
        kinds = choose_spoiled(judged.names, settings.share, seed)
        spoiled = np.stack(
            [
                spoil(mask, kinds[name], name, seed) if name in kinds else mask
                for name, mask in zip(judged.names, judged.clean, strict=True)
            ]
        )
        told = np.array([kinds.get(name, "") for name in judged.names])
        rankings = {"warpseg": ours(judged.probabilities, spoiled, judged.num_classes)}
        if find_spec("cleanlab"):
            for method in settings.methods:
                for mapped in (False, True):
                    name = f"cleanlab {method}{', mapped' if mapped else ''}"
                    made = cleanlab(judged.probabilities, spoiled, method, mapped=mapped)
                    rankings[name] = made
        rows += [_row(name, seed, ranked, told) for name, ranked in rankings.items()]
    return {
        "images": len(judged.names),
        "size": list(settings.size),
        "share": settings.share,
        "recipe": settings.recipe,
        "steps": settings.steps,
        "cleanlab": _cleanlab_version(),
        "rows": rows,
    }


def tables(result: Result) -> list[Table]:
    """Return means over the spoilings, and each spoiling."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        by_name.setdefault(row["ranking"], []).append(row)
    least = by_name["warpseg"][0]["bytes"]
    means, each = [], []
    for name, rows in by_name.items():
        kinds = [_mean([row["kinds"][kind] for row in rows]) for kind in KINDS]
        largest = max(row["bytes"] for row in rows)
        means.append(
            (
                name,
                _mean([row["average_precision"] for row in rows]),
                *kinds,
                f"{largest / MiB:.1f}",
                f"{largest / least:.1f}",
                f"{np.mean([row['seconds'] for row in rows]):.1f}",
            )
        )
        each.append((name, *(f"{row['average_precision']:.3f}" for row in rows)))
    seeds = [str(row["seed"]) for row in by_name["warpseg"]]
    height, width = result["size"]
    remark = (
        f"{result['images']} masks of {height} x {width}, {result['share']:.0%} of them spoiled; "
        f"judged by {result['recipe']}, {result['steps']} steps on the other half"
    )
    headings = ("ranking", "average precision", *KINDS, "MiB", "x warpseg", "seconds")
    return [
        Table(headings, means, remark),
        Table(("average precision, seed", *seeds), each),
    ]


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.3f}" if known else "-"


def _row(name: str, seed: int, ranked: Ranked, told: np.ndarray) -> dict[str, Any]:
    """Return a ranking's figures; of a kind, those among this kind and the masks left as they
    were."""
    kinds = {}
    for kind in KINDS:
        some = (told == kind) | (told == "")
        there = told[some] == kind
        kinds[kind] = average_precision(ranked.doubt[some], there) if there.any() else None
    return {
        "ranking": name,
        "seed": seed,
        "average_precision": average_precision(ranked.doubt, told != ""),
        "kinds": kinds,
        "bytes": ranked.bytes,
        "seconds": round(ranked.seconds, 2),
    }


def _cleanlab_version() -> str | None:
    if not find_spec("cleanlab"):
        return None
    from importlib.metadata import version

    return version("cleanlab")


def _stem(sample: Sample) -> str:
    return PurePosixPath(sample.name).stem


def _small_mask(sample: Sample, size: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(sample.read_mask())
    return np.array(picture.resize((size[1], size[0]), Image.Resampling.NEAREST))


def _small_image(sample: Sample, size: tuple[int, int]) -> Image.Image:
    picture = Image.fromarray(sample.read_image())
    return picture.resize((size[1], size[0]), Image.Resampling.BOX)


def _save(picture: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, compress_level=1)
