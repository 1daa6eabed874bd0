"""What a run says while it works: metrics.jsonl, a progress line, and the loggers it names."""

import json
import logging
import re
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from ...plain import one_line, parse_json, printable, typed
from ...shards.archive import write_text
from ..progress import above_bars
from ..tables import decimal
from .loggers import Logger

log = logging.getLogger("warpseg")

FILE = "metrics.jsonl"
"""Its name in a run's folder."""
_ONE = re.compile(r"s(?= of the pool$)")
"""What the name of a count has too much where it is one."""


class Row(TypedDict):
    """One line of metrics.jsonl, of training or of an evaluation; further keys are kept."""

    step: int
    losses: NotRequired[dict[str, float]]
    lr: NotRequired[dict[str, float]]
    seconds: NotRequired[float]
    cpu_seconds: NotRequired[float]
    images_per_second: NotRequired[float | None]
    data_wait: NotRequired[float | None]
    peak_memory: NotRequired[float | None]
    miou: NotRequired[float | None]
    accuracy: NotRequired[float | None]
    iou: NotRequired[dict[str, float | None]]
    evaluation: NotRequired[str]
    networks: NotRequired[dict[str, float | None]]


class _Printable(logging.Formatter):
    """Messages in which names from outside move no cursor; line breaks of ours stay."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message of a record."""
        return "\n".join(map(printable, super().format(record).split("\n")))


class _Beside(logging.StreamHandler):
    """A handler whose messages go above a bar that is open."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        with above_bars():
            super().emit(record)


def start_logging(rank: int = 0) -> None:
    """Send the program's messages to standard error: all of rank 0's, only warnings of the
    others'."""
    handler = _Beside(sys.stderr)
    handler.setFormatter(_Printable("%(message)s"))
    handler.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    log.setLevel(logging.INFO)


def read_rows(file: Path, *, cut: bool = True) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl, without a last one that a kill cut short (unless `cut` is
    off). Raises ValueError naming the line for one that is no row."""
    lines = file.read_bytes().splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(typed(parse_json(line), Row))
        except ValueError as error:
            if cut and number == len(lines):
                break
            raise ValueError(
                f"{file} line {number} is no row of metrics ({one_line(error)}); remove the line"
            ) from None
    return rows


def last_score(run: Path, step: int | None) -> dict[str, Any] | None:
    """Return mIoU or accuracy, and protocol, of a run's last evaluation if it was at a step; None
    where there is none, and for what is no run's folder."""
    if not (run / FILE).is_file():
        return None
    rows = [row for row in read_rows(run / FILE) if row["step"] == step]
    scored = [row for row in rows if row.get("miou", row.get("accuracy")) is not None]
    told = ("miou", "accuracy", "evaluation")
    return {key: scored[-1][key] for key in told if key in scored[-1]} if scored else None


class Journal:
    """The record of one run: rows of metrics.jsonl and their progress lines, and loggers.

    With `run` None, on ranks that only take part, nothing is written.
    """

    def __init__(self, run: Path | None, num_steps: int, *, loggers: Sequence[Logger] = ()) -> None:
        self.path = run and run / FILE
        self.num_steps = num_steps
        self.loggers = loggers
        self.restart(0)

    def restart(self, step: int) -> None:
        """Start the clocks of images/s and data wait anew at a step."""
        self.step = step
        self.started, self.cpu_started = time.perf_counter(), time.process_time()
        self.waited = 0.0
        self.images = 0

    def rewind(self, step: int) -> None:
        """Drop the rows of steps after `step`, which a resumed run writes again."""
        self.restart(step)
        for logger in self.loggers:
            logger.rewind(step)
        if self.path is None or not self.path.exists():
            return
        rows = [row for row in read_rows(self.path) if row["step"] <= step]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    def training(
        self,
        step: int,
        losses: Mapping[str, float],
        lr: Mapping[str, float],
        skipped: Mapping[str, int] | None = None,
        changed: Mapping[str, int] | None = None,
    ) -> None:
        """Record the mean losses, the seconds (of the clock, and of this process on its cores) and
        the speed since the last row; learning rates; where they are counted, by stream, the corrupt
        samples skipped so far and the images of a pool that do not show all of their files."""
        elapsed = time.perf_counter() - self.started
        steps = max(step - self.step, 1)
        rate = self.images / elapsed
        wait = self.waited / elapsed
        memory = peak_memory_mib()
        left = timedelta(seconds=round((self.num_steps - step) * elapsed / steps))
        self._write(
            {
                "step": step,
                "losses": dict(losses),
                "lr": dict(lr),
                "seconds": round(elapsed, 3),
                "cpu_seconds": round(time.process_time() - self.cpu_started, 3),
                "images_per_second": round(rate, 2),
                "data_wait": round(wait, 4),
                "peak_memory": round(memory, 1),
                **({} if skipped is None else {"skipped": dict(skipped)}),
                **({} if changed is None else {"changed": dict(changed)}),
            }
        )
        # Terms of single classes are for the record alone.
        told = {name: value for name, value in losses.items() if ":" not in name}
        terms = "  ".join(f"{name} {value:.4f}" for name, value in told.items())
        rates = ", ".join(f"{value:.2e}" for value in lr.values())
        log.info(
            f"step {step}/{self.num_steps}  {terms}  lr {rates}  {rate:.1f} images/s  "
            f"wait {wait:.0%}  {memory / 1024:.2f} GiB  {left} left"
            f"{_told('skipped as corrupt', skipped)}{_told('not shown as stored', changed)}"
        )
        self.restart(step)

    def estimate(self, step: int) -> None:
        """Say how long the steps that are left take, from those since the clocks were started."""
        each = (time.perf_counter() - self.started) / max(step - self.step, 1)
        left = timedelta(seconds=round((self.num_steps - step) * each))
        log.info(f"step {step}/{self.num_steps}  about {left} left")

    def evaluation(self, step: int, score: Mapping[str, Any]) -> None:
        """Record a score of the validation set, and of other networks where it has `networks`."""
        self._write({"step": step, **score})
        name = "miou" if "miou" in score else "accuracy"
        shares = {name: score[name], **score.get("networks", {})}
        words = "  ".join(f"{name} {decimal(value, 4)}" for name, value in shares.items())
        log.info(f"step {step}/{self.num_steps}  {words}  ({score['evaluation']})")
        self.restart(step)

    def has_score(self, step: int) -> bool:
        """Tell whether the record holds an evaluation of this step."""
        if self.path is None or not self.path.exists():
            return False
        return any(row["step"] == step and "losses" not in row for row in read_rows(self.path))

    def close(self) -> None:
        """Flush what is still in memory."""
        for logger in self.loggers:
            logger.close()

    def _write(self, row: dict[str, Any]) -> None:
        if self.path is None:
            return
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OSError(
                f"{self.path} could not be written ({error}); see that its folder is there and has "
                "room, and use --resume"
            ) from error
        for logger in self.loggers:
            logger.row(row)


def peak_memory_mib() -> float:
    """Return the most memory held so far, in MiB: of the GPU's allocator, or of this process on a
    CPU."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _told(what: str, counted: Mapping[str, int] | None) -> str:
    found = {stream: count for stream, count in (counted or {}).items() if count}
    counts = [f"{n} {_ONE.sub('', name) if n == 1 else name}" for name, n in found.items()]
    return f"  {what}: {', '.join(counts)}" if counts else ""
