"""Runs that a comparison needs: each trained in a process of its own where it is missing."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ...plugins import plugin_words, require_plugins
from ...shards import Dataset
from ..engine.processes.children import STOPPED, end_children, last_words, start_child
from ..engine.processes.stopping import Stop
from ..engine.settings import first_difference
from ..progress import Progress
from .kept.record import Run, last_step, load_run

log = logging.getLogger("warpseg")

PROGRAM = (sys.executable, "-m", "warpseg")
"""What trains a run."""
_PAUSE = 0.1
"""Seconds between looks at the trainings."""
_LINES = 60.0
"""Seconds between lines that say how far they are."""
_ASKED = ("method", "split", "classes", "settings")
"""Entries of settings.json that make a run the one that is asked for."""


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
        from .kept.folder import completed_settings, describe_run, read_settings
        from .kept.sums import other_data

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


def seed_words(settings: Any, seed: int) -> list[str]:
    """Return the words that give settings a seed: their own, or that of each run they hold, as
    rounds do."""
    names = ["seed"]
    if not hasattr(settings, "seed"):
        parts = [field.name for field in fields(settings)]
        names = [f"{part}.seed" for part in parts if hasattr(getattr(settings, part), "seed")]
    return [word for name in names for word in (f"--{name.replace('_', '-')}", str(seed))]


def train_missing(
    candidates: Sequence[Candidate],
    dataset: Dataset,
    stop: Stop,
    *,
    devices: Sequence[str],
    jobs: int,
) -> None:
    """Train the runs that are not finished, `jobs` of them side by side, devices in turn, until
    `stop` tells to end; then all are ended, their steps saved.

    Raises RuntimeError, with the last words of its log, when a training failed.
    """
    missing = [candidate for candidate in candidates if candidate.finished(dataset) is None]
    log.info(f"{len(candidates) - len(missing)} of {len(candidates)} runs are finished")
    free = [devices[n % len(devices)] for n in range(jobs)]
    steps = sum(getattr(candidate.settings, "num_steps", 0) for candidate in candidates)
    progress = Progress(steps, unit="step", lines=True, pause=_LINES)
    running: list[tuple[Candidate, str, subprocess.Popen[bytes]]] = []
    failures: list[str] = []
    try:
        while (missing or running) and not stop():
            while missing and free:
                candidate, device = missing.pop(0), free.pop(0)
                running.append((candidate, device, _start(candidate, device, jobs)))
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
