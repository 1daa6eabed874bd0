"""The verb `compare`: several recipes and seeds on one split, trained where missing, in one table.

warpseg compare RECIPE ... --data DATA --split SPLIT --out OUT [--seeds 0 1 2] [--jobs 2]
                [--any.setting value ...]

Each run is a folder OUT/RECIPE/seed-S that `warpseg train` makes in a process of its own; one that
was stopped goes on, a finished one is left as it is. OUT receives comparison.json, comparison.html
and pictures.png as well. Settings on the command line hold for all recipes.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from ...shards import Dataset
from ...shards.archive import write_text
from ..drawing import save_picture
from ..engine.journal import start_logging
from ..engine.processes.locking import alone
from ..engine.processes.stopping import Stopped, terminating
from ..recipes.changes import change_recipe
from ..recipes.registry import find_recipe
from ..reports.comparison import Comparison
from ..runs.candidates import Candidate, seed_words, train_missing
from ..runs.kept.record import Run

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
            train_missing(candidates, dataset, stop, devices=settings.devices, jobs=settings.jobs)
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
