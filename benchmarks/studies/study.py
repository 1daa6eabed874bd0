"""Train some ways of doing the same, with several seeds each, and write down what they score.

    warpseg bench study partial --work WORK --out benchmarks/results/partial-masks.json
    warpseg bench study rare --work WORK --out benchmarks/results/rare-class.json

A study is a file beside this one: data sets (words of `warpseg convert synthetic`, and how many
labeled images their split has), and ways (a recipe, flags, a data set). All ways have the same
network, crops and number of steps. WORK keeps data and runs: a study that was stopped goes on.
"""

import importlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..tables import Result, Table, result_of, write
from ..words.given import Given
from ..words.trainings import StudySettings

SPLIT = "few"
SMALL = (
    "--network.name swiftnet-lite0 --network.weights imagenet --geometry.crop-size 64 64 "
    "--batch-size 4 --loader.threads 1 --checkpoint-every 1000"
)
"""Words of every training."""


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """A data set: words of `warpseg convert synthetic`; `labeled` images have masks in training,
    all of them where it is 0."""

    words: str
    labeled: int = 0


@dataclass(frozen=True, kw_only=True)
class Way:
    """A training: recipe and flags, on one of the data sets."""

    recipe: str
    data: str
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is compared; `shown` is the class whose IoU stands beside the mean, if any."""

    text: str
    data: Mapping[str, Scenes]
    ways: Mapping[str, Way]
    shown: str | None = None


def study(given: Given) -> int:
    """Run `warpseg bench study`."""
    settings: StudySettings = given.settings
    chosen: Study = importlib.import_module(f".{settings.name}", __package__).STUDY
    content = {
        "text": chosen.text,
        "steps": settings.steps,
        "common": SMALL,
        "data": {name: vars(scenes) for name, scenes in chosen.data.items()},
        "ways": {name: vars(way) for name, way in chosen.ways.items() if settings.only in name},
    }
    rows: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        for row in run_ways(chosen, settings, settings.work or Path(folder), _warpseg):
            rows.append(row)
            result = result_of("study", given.arguments, torch.device("cpu"), content)
            write({**result, "runs": rows}, settings.out)
    print(table_of(rows, chosen).text())
    return 0


def run_ways(
    chosen: Study, settings: StudySettings, work: Path, warpseg: Callable[[str], int]
) -> Iterator[Result]:
    """Train all ways by all seeds and yield a row of each; warpseg: runs a line of words."""
    for name, scenes in chosen.data.items():
        data = work / name
        if not (data / "manifest.json").is_file():
            warpseg(f"convert synthetic {data} {scenes.words}")
        if scenes.labeled and not (data / "splits" / SPLIT).is_dir():
            warpseg(f"split {data} {SPLIT} --labeled {scenes.labeled}")
    for name, way in chosen.ways.items():
        for seed in range(settings.seeds) if settings.only in name else ():
            out = work / f"{name.replace(' ', '-')}-{seed}"
            split = f"--split {SPLIT}" if chosen.data[way.data].labeled else ""
            started = time.process_time()
            if not (out / "done.json").is_file():
                warpseg(
                    f"train {way.recipe} --data {work / way.data} {split} --out {out} --seed {seed}"
                    f" --num-steps {settings.steps} {SMALL} {way.words} --device cpu --resume"
                )
                seconds = round(time.process_time() - started, 1)
                (out / "done.json").write_text(json.dumps(_scores(out, chosen.shown, seconds)))
            yield {"way": name, "seed": seed, **json.loads((out / "done.json").read_text())}


def table_of(rows: list[Result], chosen: Study) -> Table:
    """Return the mean scores of each way, and each seed's."""
    headings = ["way", "mIoU", *([chosen.shown] if chosen.shown else []), "by seed", "CPU s"]
    lines = []
    for name in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == name]
        cells = [f"{statistics.mean(row['miou'] for row in own):.1%}"]
        if chosen.shown:
            cells.append(f"{statistics.mean(row['shown'] for row in own):.1%}")
        each = " ".join(f"{row['miou']:.1%}" for row in own)
        lines.append([name, *cells, each, f"{sum(row['cpu_seconds'] for row in own):.0f}"])
    return Table(headings, lines)


def _scores(out: Path, shown: str | None, seconds: float) -> dict[str, Any]:
    """Return the last scores of a run: mean IoU and IoU by class, in [0, 1]."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = next(row for row in reversed(rows) if "miou" in row)
    scores = {"miou": last["miou"], "iou": last["iou"], "cpu_seconds": seconds}
    return scores | ({"shown": last["iou"][shown] or 0.0} if shown else {})


def _warpseg(words: str) -> int:
    """Run `warpseg WORDS` in this process. Raise RuntimeError where it fails."""
    from ...__main__ import main

    if main(words.split()):
        raise RuntimeError(f"warpseg {words} failed")
    return 0
