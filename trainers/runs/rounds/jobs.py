"""Parts of a plan side by side: each in a process of its own, on a GPU of its own.

A process runs `warpseg train --only PART --out OUT`, sees one GPU, and writes what it has to say to
OUT/PART.log.
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ....plain import environment_number
from ....plugins import plugin_words
from ...engine.processes.children import STOPPED, end_children, last_words, start_child
from ...engine.processes.stopping import Stop
from ...methods.rounds import Part
from .folder import Rounds

log = logging.getLogger("warpseg")

PROGRAM = (sys.executable, "-m", "warpseg")
"""What does a part."""
_PAUSE = 0.2
"""Seconds between looks at the processes."""


def run_side_by_side(rounds: Rounds, todo: Sequence[Part], jobs: int, stop: Stop) -> bool:
    """Do the parts, each as soon as those that it needs are finished and one of `jobs` is free.

    Returns False where SIGTERM stopped them. Raises ValueError under torchrun or for a single named
    GPU, and RuntimeError with a part's reason where it failed, when the others are stopped too.
    """
    places = find_places(rounds.device, jobs)
    waiting, running = list(todo), dict[str, tuple[subprocess.Popen[bytes], str | None]]()
    try:
        while waiting or running:
            finished = {part.name for part in rounds.parts if rounds.record(part) is not None}
            for part in [part for part in waiting if finished.issuperset(part.needs)]:
                if stop() or not places:
                    break
                waiting.remove(part)
                place = places.pop(0)
                running[part.name] = (_start(rounds, part, place), place)
            time.sleep(_PAUSE)
            for name, (process, place) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                places.append(place)
                if process.returncode in STOPPED:
                    return False  # somebody stopped it
                if process.returncode:
                    raise RuntimeError(_reason(rounds, name, process.returncode))
            if stop():
                return False
    finally:
        end_children(process for process, _ in running.values())
    return True


def find_places(device: str, jobs: int) -> list[str | None]:
    """Return what CUDA_VISIBLE_DEVICES says for each of the jobs; None on a CPU.

    There are no more than there are GPUs. Raises ValueError where processes have a group already,
    or one GPU is asked for by number.
    """
    if environment_number("WORLD_SIZE", 1) > 1:
        raise ValueError(
            "--jobs is for one process; under torchrun all ranks do each part together"
        )
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--jobs {jobs} takes GPUs by itself: leave out --device {device}")
    if device == "cpu" or not torch.cuda.is_available():
        return [None] * jobs
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names: list[str | None] = list(visible.split(",")) if visible else []
    names = names or [str(number) for number in range(torch.cuda.device_count())]
    if len(names) < jobs:
        log.info(f"--jobs {jobs}: there are {len(names)} GPUs, so parts take them in turn")
    return names[:jobs]


def _start(rounds: Rounds, part: Part, place: str | None) -> subprocess.Popen[bytes]:
    words = ["train", "--only", part.name, "--out", str(rounds.out), "--device", rounds.device]
    words += plugin_words()
    environment: dict[str, Any] = {**os.environ}
    if place is not None:
        environment["CUDA_VISIBLE_DEVICES"] = place
    where = "" if place is None else f" on GPU {place}"
    log.info(f"part {part.name}{where}: {rounds.out / part.name}.log")
    return start_child([*PROGRAM, *words], Path(f"{rounds.out / part.name}.log"), environment)


def _reason(rounds: Rounds, name: str, status: int) -> str:
    file = rounds.out / f"{name}.log"
    return f"part {name} failed with status {status}: {last_words(file, status)} ({file})"
