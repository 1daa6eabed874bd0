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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import tyro

from ...plugins import plugin_words, require_plugins
from ...shards import Dataset
from ..engine.journal import start_logging
from ..engine.settings import first_difference, to_plain
from ..recipes.changes import change_recipe
from ..reports.comparison import Comparison
from ..runs.record import Run, load_run

PROGRAM = (sys.executable, "-m", "warpseg")
"""What trains a run."""

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

    def finished(self) -> Run | None:
        """Return the run if it has its last score already.

        Raises ValueError where the folder holds a run of other settings.
        """
        path = self.folder / "settings.json"
        if not path.is_file():
            return None
        from ..runs.folder import completed_settings

        held = json.loads(path.read_text())
        require_plugins(held.get("plugins", ()), self.folder)
        asked = {"split": self.split, "settings": to_plain(self.settings)}
        before = {"split": held.get("split"), "settings": completed_settings(held)}
        different = first_difference(before, asked)
        if different:
            raise ValueError(
                f"{self.folder} holds a run of other settings ({different}); "
                "choose another --out or remove the folder"
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
    cannot be scored, and RuntimeError, once the others are done, when a training failed.
    """
    from ..reports.comparison_page import page, pictures

    dataset = Dataset.open(settings.data)
    if "val" not in dataset.subsets:
        raise ValueError(
            f"{settings.data} has no validation images to compare on; convert it with a val folder"
        )
    if settings.split is not None:
        dataset.split_record(settings.split)
    candidates = list_candidates(recipes, settings, changes)
    train_missing(candidates, settings)
    runs: dict[str, list[Run]] = {recipe: [] for recipe in recipes}
    for candidate in candidates:
        run = candidate.finished()
        if run is None:
            raise RuntimeError(f"{candidate.folder} was stopped; compare again to go on")
        runs[candidate.recipe].append(run)
    comparison = Comparison(runs)
    drawn = None
    if settings.images and dataset.task == "segmentation":
        drawn = pictures(comparison, dataset, settings.images, settings.devices[0])
        drawn.save(settings.out / "pictures.png")
    text = json.dumps(comparison.to_json(), indent=2)
    (settings.out / "comparison.json").write_text(text + "\n")
    (settings.out / "comparison.html").write_text(page(comparison, drawn))
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
        changed = change_recipe(recipe, changes)
        for seed in settings.seeds:
            folder = settings.out / recipe / f"seed-{seed}"
            words = [*changes, *seed_words(changed, seed)]
            seeded = change_recipe(recipe, words)
            words = [recipe, "--data", str(settings.data), "--out", str(folder), "--resume", *words]
            words += [] if settings.split is None else ["--split", settings.split]
            candidates.append(Candidate(recipe, seeded, settings.split, folder, tuple(words)))
    return candidates


def seed_words(settings: Any, seed: int) -> list[str]:
    """Return the words that give settings a seed: their own, or that of each run they hold, as
    rounds do."""
    names = ["seed"]
    if not hasattr(settings, "seed"):
        parts = [field.name for field in fields(settings)]
        names = [f"{part}.seed" for part in parts if hasattr(getattr(settings, part), "seed")]
    return [word for name in names for word in (f"--{name.replace('_', '-')}", str(seed))]


def train_missing(candidates: Sequence[Candidate], settings: CompareSettings) -> None:
    """Train the runs that are not finished, `jobs` of them side by side, devices in turn.

    Raises RuntimeError, with the last words of its log, when a training failed.
    """
    missing = [candidate for candidate in candidates if candidate.finished() is None]
    log.info(f"{len(candidates) - len(missing)} of {len(candidates)} runs are finished")
    free: SimpleQueue[str] = SimpleQueue()
    for number in range(settings.jobs):
        free.put(settings.devices[number % len(settings.devices)])

    def work(candidate: Candidate) -> str | None:
        device = free.get()
        try:
            return _train(candidate, device, settings.jobs)
        finally:
            free.put(device)

    with ThreadPoolExecutor(settings.jobs) as pool:
        failures = [failure for failure in pool.map(work, missing) if failure]
    if failures:
        raise RuntimeError(failures[0])


def _train(candidate: Candidate, device: str, jobs: int) -> str | None:
    """Train one run in a process of its own; return what went wrong, or None."""
    where = f"{candidate.recipe} {candidate.folder.name}"
    record = candidate.folder.with_suffix(".log")
    record.parent.mkdir(parents=True, exist_ok=True)
    log.info(f"{where}: training on {device}, log {record}")
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    with record.open("a") as file:
        status = subprocess.run(
            [*PROGRAM, "train", *candidate.words, "--device", device, *plugin_words()],
            env={"OMP_NUM_THREADS": threads, **os.environ},
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    log.info(f"{where}: {'failed' if status else 'done'}")
    if not status:
        return None
    said = record.read_text().strip().splitlines()
    return f"{where} failed: {said[-1] if said else f'exit status {status}'} (log {record})"
