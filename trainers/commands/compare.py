"""The verb `compare`: several recipes and seeds on one split, trained where missing, in one table.

warpseg compare RECIPE ... --data DATA --split SPLIT --out OUT [--seeds 0 1 2] [--jobs 2]
                [--any.setting value ...]

Each run is a folder OUT/RECIPE/seed-S that `warpseg train` makes in a process of its own; one that
was stopped goes on, a finished one is left as it is. OUT receives comparison.json, comparison.html
and pictures.png as well. Settings on the command line hold for all recipes.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import tyro

from ...plugins import plugin_words, require_plugins
from ...shards import Dataset
from ...shards.archive import write_text
from ..drawing import save_picture
from ..engine.journal import start_logging
from ..engine.processes.children import STOPPED, end_children, last_words, start_child
from ..engine.processes.locking import alone
from ..engine.processes.stopping import Stop, Stopped, terminating
from ..engine.settings import first_difference
from ..progress import Progress
from ..recipes.changes import change_recipe
from ..recipes.registry import find_recipe
from ..reports.comparison import Comparison
from ..runs.kept.record import Run, last_step, load_run

PROGRAM = (sys.executable, "-m", "warpseg")
"""What trains a run."""
_PAUSE = 0.1
"""Seconds between looks at the trainings."""
_LINES = 60.0
"""Seconds between lines that say how far they are."""
_ASKED = ("method", "split", "classes", "settings")
"""Entries of settings.json that make a run the one that is asked for."""

log = logging.getLogger("warpseg")


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Train recipes over seeds on one split where that is missing, and compare their scores."""

    data: Path
    """folder that `warpseg convert` made"""
    out: Path
    """folder for the runs, OUT/RECIPE/seed-S, and for what is reported of them"""
    split: str | None = None
    """a split that `warpseg split` made; without one, all masks are used"""
    seeds: tuple[int, ...] = (0,)
    """seeds of each recipe; the score's deviation needs two or more"""
    jobs: int = 1
    """runs that train side by side"""
    devices: tuple[str, ...] = ("auto",)
    """devices that the jobs take in turn, such as cuda:0 cuda:1"""
    images: int = 4
    """validation images that are drawn under each method"""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"--jobs must be at least 1; got {self.jobs}")
        if self.images < 0:
            raise ValueError(f"--images must be 0 or more; got {self.images}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"--seeds takes one or more different numbers; got {self.seeds}")


@dataclass(frozen=True)
class Candidate:
    """A run that the comparison needs: a recipe with its changes, at one seed."""

    recipe: str
    settings: Any
    split: str | None
    folder: Path
    words: tuple[str, ...] = field(repr=False)
    """Words for `warpseg train`, the device apart."""

    def finished(self, dataset: Dataset) -> Run | None:
        """Return the run if it has its last score already.

        Raises ValueError where the folder holds a run of other settings or on other data.
        """
        if not (self.folder / "settings.json").is_file():
            return None
        from ..runs.kept.folder import completed_settings, describe_run, read_settings
        from ..runs.kept.sums import other_data

        held = read_settings(self.folder)
        require_plugins(held.get("plugins", ()), self.folder)
        asked = describe_run(self.settings, dataset, self.split, recipe=self.recipe)
        before = {key: held.get(key) for key in _ASKED}
        if held["method"] == asked["method"]:
            before["settings"] = completed_settings(held)
        different = first_difference(before, {key: asked[key] for key in _ASKED})
        if different:
            raise ValueError(
                f"{self.folder} holds a run of other settings ({different}); "
                "choose another --out or remove the folder"
            )
        changed = other_data(held.get("sums"), asked["sums"])
        if changed:
            raise ValueError(
                f"{self.folder} holds a run on other data ({changed} of {asked['data']} is not "
                "what it was); choose another --out or remove the folder"
            )
        try:
            run = load_run(self.folder)
        except FileNotFoundError:
            return None
        # Rounds write the rows of all parts when the last one is finished.
        steps = getattr(self.settings, "num_steps", 0)
        return run if run.evaluations and run.evaluations[-1]["step"] >= steps else None


def compare(arguments: list[str]) -> int:
    """Compare recipes: `compare RECIPE ... --data DATA --out OUT`."""
    count = next((n for n, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    recipes, rest = tuple(dict.fromkeys(arguments[:count])), arguments[count:]
    settings, changes = tyro.cli(
        CompareSettings,
        args=rest,
        prog="warpseg compare RECIPE ... [--any.setting value ...]",
        return_unknown_args=True,
    )
    if not recipes:
        raise ValueError("compare takes one RECIPE or more first; see warpseg train --help")
    start_logging()
    comparison = run_comparison(recipes, settings, changes)
    print(comparison.table())
    print(f"\n{settings.out / 'comparison.html'}")
    return 0


def run_comparison(
    recipes: Sequence[str], settings: CompareSettings, changes: Sequence[str] = ()
) -> Comparison:
    """Train what is missing, write the report into the settings' folder and return it.

    changes: words such as `--num-steps 400`, for all recipes. Raises ValueError for a data set that
    cannot be scored, RuntimeError, once the others are done, when a training failed, and Stopped,
    with the trainings ended and saved, where SIGTERM or Ctrl-C asked for it.
    """
    dataset = Dataset.open(settings.data)
    if "val" not in dataset.subsets:
        raise ValueError(
            f"{settings.data} has no validation images to compare on; convert it with a val folder"
        )
    if settings.split is not None:
        dataset.split_record(settings.split)
    candidates = list_candidates(recipes, settings, changes)
    with alone(settings.out):
        with terminating() as stop:
            train_missing(candidates, settings, dataset, stop)
        if stop():
            raise Stopped("stopped; the same command goes on", stop.number)
        return _write_report(recipes, candidates, settings, dataset)


def _write_report(
    recipes: Sequence[str],
    candidates: Sequence[Candidate],
    settings: CompareSettings,
    dataset: Dataset,
) -> Comparison:
    runs: dict[str, list[Run]] = {recipe: [] for recipe in recipes}
    for candidate in candidates:
        run = candidate.finished(dataset)
        if run is None:
            raise Stopped(f"{candidate.folder} was stopped; the same command goes on")
        runs[candidate.recipe].append(run)
    from ..reports.comparison_page import page, pictures

    comparison = Comparison(runs)
    drawn = None
    if settings.images and dataset.task == "segmentation":
        drawn = pictures(comparison, dataset, settings.images, settings.devices[0])
        save_picture(drawn, settings.out / "pictures.png")
    text = json.dumps(comparison.to_json(), indent=2)
    write_text(settings.out / "comparison.json", text + "\n")
    write_text(settings.out / "comparison.html", page(comparison, drawn))
    return comparison


def list_candidates(
    recipes: Sequence[str], settings: CompareSettings, changes: Sequence[str]
) -> list[Candidate]:
    """Return all runs of the comparison, in order of recipe and seed.

    Raises ValueError for a recipe that does not exist, and exits with status 2 for a word that is
    no setting of each of them.
    """
    if any(word.split("=")[0].endswith("seed") for word in changes if word.startswith("--")):
        raise ValueError("a comparison has several seeds; say --seeds instead of --seed")
    candidates = []
    for recipe in recipes:
        held = [*changes, *_shorter_warmup(recipe, changes)]
        changed = change_recipe(recipe, held)
        for seed in settings.seeds:
            folder = settings.out / recipe / f"seed-{seed}"
            words = [*held, *seed_words(changed, seed)]
            seeded = change_recipe(recipe, words)
            words = [recipe, "--data", str(settings.data), "--out", str(folder), "--resume", *words]
            words += [] if settings.split is None else ["--split", settings.split]
            candidates.append(Candidate(recipe, seeded, settings.split, folder, tuple(words)))
    return candidates


def _shorter_warmup(recipe: str, changes: Sequence[str]) -> list[str]:
    """Return the words that keep the warm-up's share of a recipe's steps, where so few steps are
    asked for that nothing would follow it; other recipes have no such setting to be told."""
    recipe_settings = find_recipe(recipe)
    warmup, usual = (getattr(recipe_settings, n, 0) for n in ("warmup_steps", "num_steps"))
    words = " ".join(changes).replace("=", " ").replace("_", "-").split()
    if not warmup or "--num-steps" not in words[:-1] or "--warmup-steps" in words:
        return []
    asked = words[words.index("--num-steps") + 1]
    if not asked.isdigit() or int(asked) > warmup:
        return []
    fewer = warmup * int(asked) // usual
    log.info(f"{recipe}: --warmup-steps {fewer} in place of {warmup}, the same share of its steps")
    return ["--warmup-steps", str(fewer)]


def seed_words(settings: Any, seed: int) -> list[str]:
    """Return the words that give settings a seed: their own, or that of each run they hold, as
    rounds do."""
    names = ["seed"]
    if not hasattr(settings, "seed"):
        parts = [field.name for field in fields(settings)]
        names = [f"{part}.seed" for part in parts if hasattr(getattr(settings, part), "seed")]
    return [word for name in names for word in (f"--{name.replace('_', '-')}", str(seed))]


def train_missing(
    candidates: Sequence[Candidate], settings: CompareSettings, dataset: Dataset, stop: Stop
) -> None:
    """Train the runs that are not finished, `jobs` of them side by side, devices in turn, until
    `stop` tells to end; then all are ended, their steps saved.

    Raises RuntimeError, with the last words of its log, when a training failed.
    """
    missing = [candidate for candidate in candidates if candidate.finished(dataset) is None]
    log.info(f"{len(candidates) - len(missing)} of {len(candidates)} runs are finished")
    free = [settings.devices[n % len(settings.devices)] for n in range(settings.jobs)]
    steps = sum(getattr(candidate.settings, "num_steps", 0) for candidate in candidates)
    progress = Progress(steps, unit="step", lines=True, pause=_LINES)
    running: list[tuple[Candidate, str, subprocess.Popen[bytes]]] = []
    failures: list[str] = []
    try:
        while (missing or running) and not stop():
            while missing and free:
                candidate, device = missing.pop(0), free.pop(0)
                running.append((candidate, device, _start(candidate, device, settings.jobs)))
            time.sleep(_PAUSE)
            if steps:
                progress.reach(sum(last_step(candidate.folder) for candidate in candidates))
            for entry in [entry for entry in running if entry[2].poll() is not None]:
                running.remove(entry)
                free.append(entry[1])
                failures += _told(entry[0], entry[2].returncode)
    finally:
        progress.close()
        end_children(process for _, _, process in running)
    if failures:
        raise RuntimeError(failures[0])


def train_one(candidate: Candidate, device: str, stop: Stop) -> None:
    """Train one run, or go on with it, until `stop` tells to end; then it has saved its steps.

    Raises RuntimeError, with the last words of its log, when it failed.
    """
    process = _start(candidate, device, 1)
    try:
        while process.poll() is None and not stop():
            time.sleep(_PAUSE)
    finally:
        end_children([process])
    failures = _told(candidate, process.returncode)
    if failures:
        raise RuntimeError(failures[0])


def _start(candidate: Candidate, device: str, jobs: int) -> subprocess.Popen[bytes]:
    """Start the training of a run in a process of its own."""
    record = candidate.folder.with_suffix(".log")
    record.parent.mkdir(parents=True, exist_ok=True)
    log.info(f"{_name(candidate)}: training on {device}, log {record}")
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    words = [*PROGRAM, "train", *candidate.words, "--device", device, *plugin_words()]
    return start_child(words, record, {"OMP_NUM_THREADS": threads, **os.environ})


def _told(candidate: Candidate, status: int) -> list[str]:
    """Say how a training ended; return what went wrong, if anything."""
    where, record = _name(candidate), candidate.folder.with_suffix(".log")
    stopped = status in STOPPED
    log.info(f"{where}: {'stopped' if stopped else 'failed' if status else 'done'}")
    if stopped or not status:
        return []
    return [f"{where} failed: {last_words(record, status)} (log {record})"]


def _name(candidate: Candidate) -> str:
    return f"{candidate.recipe} {candidate.folder.name}"
