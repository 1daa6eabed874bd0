"""What it brings to keep a frozen encoder's features: the same head trained live and from shards.

    warpseg bench features DATA --split S --work WORK --out benchmarks/results/features-camvid.json

Three ways, each with several seeds: `learn`, the encoder learns as well; `frozen`, it stays, and
sees every view in its step; `cached`, the head learns from features of K views that were made
before. All have one head, crops, batch and number of steps. Scores are taken on the validation
images at steps that are set beforehand, and choose nothing. WORK keeps features and runs: a study
that was stopped goes on.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ..tables import Result, Table, result_of, write
from ..words.given import Given
from ..words.trainings import FeaturesBenchSettings

WAYS = {
    "learn": "--network.freeze norms",
    "frozen": "--network.freeze backbone",
    "cached": "--network.freeze backbone",
}
"""Words of each way; `cached` has the features as well."""


def features(given: Given) -> int:
    """Run `warpseg bench features`."""
    settings: FeaturesBenchSettings = given.settings
    with tempfile.TemporaryDirectory() as folder:
        work = settings.work or Path(folder)
        made = make(settings, work, _warpseg)
        content = {
            "recipe": settings.recipe,
            "network": settings.network,
            "split": settings.split,
            "steps": settings.steps,
            "views": settings.views,
            "encoding": settings.encoding,
            "made": made,
            "targets": list(settings.targets),
        }
        rows: list[Result] = []
        for row in run_ways(settings, work, _warpseg):
            rows.append(row)
            result = result_of("features", given.arguments, torch.device("cpu"), content)
            write({**result, "runs": rows}, settings.out)
    for table in tables_of(rows, made, settings.targets):
        print(f"{table.text()}\n")
    return 0


def words_of(settings: FeaturesBenchSettings) -> str:
    """Return the words that all commands have."""
    split = f" --split {settings.split}" if settings.split else ""
    return (
        f"{settings.recipe} --data {settings.data}{split} --network.name {settings.network} "
        f"--network.options head_norm=group {settings.options} --loader.threads 1 --device cpu"
    ).replace("  ", " ")


def make(
    settings: FeaturesBenchSettings, work: Path, warpseg: Callable[[str], int]
) -> dict[str, Any]:
    """Make the features, once, and return their bytes, the greatest error of a level, and the
    seconds of the processor and of the clock that they took."""
    work.mkdir(parents=True, exist_ok=True)
    folder, note = work / "features", work / "features.json"
    if not note.is_file():
        cpu, clock = time.process_time(), time.perf_counter()
        warpseg(
            f"features {words_of(settings)} {WAYS['cached']} --out {folder} "
            f"--views {settings.views} --encoding {settings.encoding}"
        )
        cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
        streams = json.loads((folder / "manifest.json").read_text())["streams"].values()
        told = {
            "bytes": sum(file.stat().st_size for file in folder.iterdir()),
            "predicted": sum(stream["bytes"] for stream in streams),
            "error": max(error["relative"] for stream in streams for error in stream["errors"]),
            "cpu_seconds": round(cpu, 1),
            "seconds": round(clock, 1),
        }
        note.write_text(json.dumps(told))
    return json.loads(note.read_text())


def run_ways(
    settings: FeaturesBenchSettings, work: Path, warpseg: Callable[[str], int]
) -> Iterator[Result]:
    """Train all ways by all seeds and yield a row of each, seeds first."""
    most = settings.seeds if settings.learn_seeds is None else settings.learn_seeds
    for seed in range(settings.seeds):
        for way, words in WAYS.items():
            if way == "learn" and seed >= most:
                continue
            out = work / f"{way}-{seed}"
            more = f" --features {work / 'features'}" if way == "cached" else ""
            if not (out / "done").is_file():
                warpseg(
                    f"train {words_of(settings)} {words}{more} --out {out} --seed {seed} "
                    f"--num-steps {settings.steps} --log-every {settings.every} "
                    f"--evaluate-every {settings.every} --checkpoint-every {settings.steps} "
                    "--resume"
                )
                (out / "done").touch()
            rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            yield {"way": way, "seed": seed, **course_of(rows)}


def course_of(rows: Sequence[Result]) -> Result:
    """Return the course of a run: steps a second of the processor's time and of the clock, training
    alone, and [step, CPU seconds of training so far, mean IoU] of each score."""
    training = [row for row in rows if "cpu_seconds" in row]
    cpu, clock = (times_of(training, name) for name in ("cpu_seconds", "seconds"))
    curve = [
        [row["step"], round(sum(s for step, s in cpu.items() if step <= row["step"]), 2), score]
        for row in rows
        if (score := row.get("miou")) is not None
    ]
    steps = training[-1]["step"]
    return {
        "steps_per_cpu_second": round(steps / sum(cpu.values()), 3),
        "steps_per_second": round(steps / sum(clock.values()), 3),
        "miou": curve[-1][2],
        "curve": curve,
    }


def times_of(training: Sequence[Result], name: str) -> dict[int, float]:
    """Return the seconds of the steps before each row, by the row's step.

    A row of a run that went on after a stop holds the time of the images since then alone: it
    counts for all of its steps, at the rate of these.
    """
    images = [row["seconds"] * row["images_per_second"] for row in training]
    before = [0, *(row["step"] for row in training)]
    share = [n / (row["step"] - b) for n, row, b in zip(images, training, before, strict=False)]
    factors = [max(share) / part for part in share]  # 1 but for the rounding of what rows hold
    return {
        row["step"]: row[name] * (factor if factor > 1.01 else 1)
        for row, factor in zip(training, factors, strict=True)
    }


def time_to(curve: Sequence[Sequence[float]], target: float) -> float | None:
    """Return the CPU seconds of training before the first score of at least `target`; None where
    there is none."""
    return next((seconds for _, seconds, score in curve if score >= target), None)


def tables_of(rows: Sequence[Result], made: Result, targets: Sequence[float]) -> list[Table]:
    """Return speed and score of each way, and the time to each target, making features included."""
    ways = list(dict.fromkeys(row["way"] for row in rows))
    speeds = {way: _mean(rows, way, "steps_per_cpu_second") for way in ways}
    first = [
        [
            way,
            f"{speeds[way]:.2f}",
            f"{speeds[way] / speeds[ways[0]]:.1f} x",
            f"{_mean(rows, way, 'miou'):.1%}",
            " ".join(f"{row['miou']:.1%}" for row in rows if row["way"] == way),
        ]
        for way in ways
    ]
    second = []
    for way in ways:
        before = made["cpu_seconds"] if way == "cached" else 0.0
        cells = [way]
        for target in targets:
            times = [time_to(row["curve"], target) for row in rows if row["way"] == way]
            reached = [seconds + before for seconds in times if seconds is not None]
            told = f"{statistics.mean(reached):.1f} s" if reached else "never"
            cells.append(told if len(reached) in (0, len(times)) else f"{told} ({len(reached)})")
        second.append(cells)
    headings = [f"mIoU {target:.0%}" for target in targets]
    return [
        Table(["way", "steps / CPU s", "against learn", "mIoU", "by seed"], first),
        Table(
            ["CPU s of training to", *headings],
            second,
            f"cached: with {made['cpu_seconds']} s of making the features; in brackets, how many "
            "seeds came there, where not all did",
        ),
    ]


def _mean(rows: Sequence[Result], way: str, name: str) -> float:
    return statistics.mean(row[name] for row in rows if row["way"] == way)


def _warpseg(words: str) -> int:
    """Run `warpseg WORDS` in this process. Raise RuntimeError where it fails."""
    from ...__main__ import main

    if main(words.split()):
        raise RuntimeError(f"warpseg {words} failed")
    return 0
