"""Recipes at equal cost: the same images, the same time or as many steps, the last step's score.

    warpseg bench race RECIPE ... --data DATA --splits few-0 few-1 few-2 --seeds 0 1 2
                       [--budget 30m | --num-steps 600] [--by scene] [--results FILE.json]
                       [--any.setting value ...]

Each run is a folder that `warpseg train` makes in a process of its own, and goes on where it was
stopped; each gets its row in the file of results at once, and what has a row is not trained again.
A RECIPE may have words of its own, in quotes: "consistency-X --mean-teacher". Settings are best
found, and methods best compared, on images held out of training (`warpseg split --held-out`): a
validation set is for the last word.
"""

import json
import logging
import os
import shlex
import statistics
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...shards import Dataset
from ...shards.archive import write_text
from ...trainers.engine.journal import start_logging
from ...trainers.engine.processes.children import PARENT
from ...trainers.engine.processes.locking import alone
from ...trainers.engine.processes.stopping import Stop, Stopped, terminating
from ...trainers.engine.settings import first_difference, to_plain
from ...trainers.methods.registry import method_name
from ...trainers.runs.candidates import PROGRAM, Candidate, train_one
from ...trainers.runs.kept.folder import completed_settings
from ...trainers.runs.kept.record import load_run
from ...trainers.runs.kept.sums import data_sums, other_data
from ..contenders.entries import Entry, in_rounds, read_entries
from ..contenders.published import published_table
from ..contenders.standings import missing, scores_table
from ..tables import Result, result_of
from ..timing import choose_device
from ..words.given import Given
from ..words.trainings import RaceSettings, seconds_of

PROBE_STEPS = 30
"""Steps by which the time of a step is measured; the first third warms up."""

log = logging.getLogger("warpseg")


def race(given: Given) -> int:
    """Run `warpseg bench race`."""
    settings: RaceSettings = given.settings
    start_logging()
    shared = (*given.changes, *(("--evaluation.by", settings.by) if settings.by else ()))
    entries = read_entries(given.recipes, shared)
    course = Race(entries, settings, given.arguments)
    if not settings.table:
        with alone(settings.out), terminating() as stop:
            with suppress(Stopped):
                course.run(stop)
            if stop():
                raise Stopped("stopped; the same command goes on", stop.number)
    names = [entry.name for entry in entries]
    print(scores_table(course.result, names).text())
    left = missing(course.result, names, settings.splits, settings.seeds)
    if left:
        print(f"\n{len(left)} of {len(left) + course.rows} runs have no row yet")
    print(f"\n{published_table().text()}\n\n{course.file}")
    return 0


class Race:
    """Entries over splits and seeds, and the file of what is known of them."""

    def __init__(
        self, entries: Sequence[Entry], settings: RaceSettings, arguments: Sequence[str]
    ) -> None:
        self.entries, self.settings, self.arguments = entries, settings, tuple(arguments)
        self.dataset = Dataset.open(settings.data)
        self.file = settings.results or settings.out / "race.json"
        self.result = self._read()

    @property
    def rows(self) -> int:
        """How many rows of those that are asked for are there."""
        asked = len(self.entries) * len(self.settings.splits) * len(self.settings.seeds)
        names = [entry.name for entry in self.entries]
        return asked - len(missing(self.result, names, self.settings.splits, self.settings.seeds))

    def run(self, stop: Stop) -> None:
        """Make the rows that are missing, seed by seed and split by split, so that what is stopped
        early has something of all entries.

        Raises ValueError for a split without the images to score on and for rows of other settings
        or data, RuntimeError where a training failed.
        """
        settings = self.settings
        for split in settings.splits:
            if settings.subset != "val":
                self.dataset.subset(settings.subset, split)
        steps = {entry.name: self._steps(entry, stop) for entry in self.entries if not stop()}
        for name, words in steps.items():
            self._describe(next(e for e in self.entries if e.name == name), words)
        for seed in settings.seeds:
            for split in settings.splits:
                for entry in self.entries:
                    if stop():
                        return
                    self._one(entry, split, seed, steps[entry.name], stop)

    def _one(self, entry: Entry, split: str, seed: int, steps: list[str], stop: Stop) -> None:
        """Train and score one run, if it has no row."""
        if self._known(entry.name, split, seed):
            return
        candidate = entry.candidate(self.settings.data, split, seed, self.settings.out, steps)
        if candidate.finished(self.dataset) is None:
            train_one(candidate, self.settings.device, stop)
        if not stop():
            row = self._row(entry, candidate, split, seed)
            self.result["rows"].append(row)
            self._write()
            log.info(f"{entry.name} {split} seed {seed}: {100 * row['score']:.2f} % mIoU")

    def _known(self, name: str, split: str, seed: int) -> bool:
        """Tell whether a run has a row. Raises ValueError where it is of other images."""
        for row in self.result["rows"]:
            if (row["entry"], row["split"], row["seed"]) == (name, split, seed):
                changed = other_data(row["sums"], data_sums(self.dataset, split))
                if changed:
                    raise ValueError(
                        f"{self.file} has a row of {name} on {split} that is of other images "
                        f"({changed} of {self.dataset.root} is not what it was): choose another "
                        "--results"
                    )
                return True
        return False

    def _describe(self, entry: Entry, steps: list[str]) -> None:
        """Note an entry's settings, or hold them against those that its rows were made with.

        Raises ValueError where they differ.
        """
        settings = entry.settings(steps)
        described = {"method": method_name(settings), "settings": to_plain(settings)}
        held = self.result["entries"].setdefault(entry.name, described)
        different = first_difference(completed_settings(held), described["settings"])
        if different:
            raise ValueError(
                f"{self.file} has rows of {entry.name} with other settings ({different}): remove "
                "them, or choose another --results"
            )

    def _row(self, entry: Entry, candidate: Candidate, split: str, seed: int) -> dict[str, Any]:
        """Score a finished run and return its row."""
        run, scored = load_run(candidate.folder), self._score(candidate.folder)
        summary = run.summary()
        last = run.training[-1]["losses"] if run.training else {}
        name = "accuracy" if "accuracy" in scored else "miou"
        machine = result_of("race", (), choose_device(_kind(self.settings.device)), {})["machine"]
        return {
            "entry": entry.name,
            "split": split,
            "seed": seed,
            "steps": summary["steps"],
            "score": scored[name],
            "groups": scored.get("groups", {}),
            "iou": scored.get("iou"),
            "images": scored["images"],
            "val": summary["last"],
            "seconds": summary["seconds"],
            "cpu_seconds": summary["cpu_seconds"],
            "ranks": run.settings.get("world_size") or 1,
            "peak_memory": summary["peak_memory"],
            "mode_gap": last.get("batch_norm/mode_gap"),
            "sums": data_sums(self.dataset, split),
            "machine": {k: machine[k] for k in ("name", "torch", "commit", "date", "load")},
        }

    def _score(self, folder: Path) -> dict[str, Any]:
        """Score a run in a process of its own and return what `warpseg evaluate` says."""
        words = ["evaluate", str(folder), "--data", str(self.settings.data)]
        words += ["--subset", self.settings.subset, "--device", self.settings.device]
        words += ["--evaluation.by", self.settings.by] if self.settings.by else []
        return json.loads(spoken(words).strip().splitlines()[-1])

    def _steps(self, entry: Entry, stop: Stop) -> list[str]:
        """Return the words that give an entry its number of steps: of a budget, measured once and
        kept in the file; none where the recipe, or --num-steps, says it."""
        if self.settings.budget is None:
            return []
        budget = seconds_of(self.settings.budget)
        if in_rounds(entry.settings()):
            raise ValueError(
                f"{entry.name} trains in rounds, whose steps differ: race it by --num-steps"
            )
        pace = self.result["seconds_per_step"]
        if entry.name not in pace:
            pace[entry.name] = self._probe(entry, stop)
            self._write()
        return ["--num-steps", str(max(1, int(budget / pace[entry.name])))]

    def _probe(self, entry: Entry, stop: Stop) -> float:
        """Return the seconds of a step, none of a warm-up: of a GPU by the clock, of a CPU those of
        its cores."""
        words = ("--num-steps", str(PROBE_STEPS), "--log-every", str(PROBE_STEPS // 6))
        if getattr(entry.settings(), "warmup_steps", 0):
            words += ("--warmup-steps", "0")
        out = self.settings.out / "probes"
        candidate = entry.candidate(self.settings.data, self.settings.splits[0], 0, out, words)
        if candidate.finished(self.dataset) is None:
            train_one(candidate, self.settings.device, stop)
        if stop():
            raise Stopped
        on_gpu = choose_device(_kind(self.settings.device)).type == "cuda"
        rows = load_run(candidate.folder).training[2:]
        return statistics.median(
            row["seconds" if on_gpu else "cpu_seconds"] / (PROBE_STEPS // 6) for row in rows
        )

    def _read(self) -> Result:
        """Return what the file holds, or an empty result. Raises ValueError for a file of another
        race: other images to score on, other groups, another budget."""
        settings = self.settings
        course = {"subset": settings.subset, "by": settings.by, "budget": settings.budget}
        if not self.file.is_file():
            return {**course, "entries": {}, "seconds_per_step": {}, "rows": []}
        held = json.loads(self.file.read_text())
        if not isinstance(held, dict) or held.get("kind") != "race":
            raise ValueError(f"{self.file} is no result of bench race: choose another --results")
        different = first_difference({key: held.get(key) for key in course}, course)
        if different:
            raise ValueError(f"{self.file} is of another race ({different})")
        return held

    def _write(self) -> None:
        """Write what is known, as a whole."""
        device = choose_device(_kind(self.settings.device))
        content = {k: v for k, v in self.result.items() if k not in ("command", "kind", "machine")}
        words = [shlex.quote(word) for word in self.arguments]
        self.result = result_of("race", words, device, content)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.file, json.dumps(self.result, indent=1) + "\n")


def spoken(words: Sequence[str]) -> str:
    """Run a verb of warpseg in a process of its own and return what it prints.

    Raises RuntimeError with its last words where it fails.
    """
    done = subprocess.run(
        [*PROGRAM, *words],
        capture_output=True,
        text=True,
        env={**os.environ, PARENT: str(os.getpid())},
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"warpseg {' '.join(words[:2])} failed: {said[-1]}")
    return done.stdout


def _kind(device: str) -> str:
    """Return auto, cpu or cuda of a device with or without its number."""
    return device.partition(":")[0]
