"""What a run says while it works: metrics.jsonl, a progress line, and the loggers it names."""

import json
import logging
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..tables import decimal
from .loggers import Logger

log = logging.getLogger("warpseg")


def start_logging(rank: int = 0) -> None:
    """Send the program's messages to standard error: all of rank 0's, only warnings of the
    others'."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO if rank == 0 else logging.WARNING)


class Journal:
    """The record of one run: rows of metrics.jsonl and their progress lines, and loggers.

    With `run` None, on ranks that only take part, nothing is written.
    """

    def __init__(self, run: Path | None, num_steps: int, *, loggers: Sequence[Logger] = ()) -> None:
        self.path = run and run / "metrics.jsonl"
        self.num_steps = num_steps
        self.loggers = loggers
        self.restart(0)

    def restart(self, step: int) -> None:
        """Start the clocks of images/s and data wait anew at a step."""
        self.step = step
        self.started = time.perf_counter()
        self.waited = 0.0
        self.images = 0

    def rewind(self, step: int) -> None:
        """Drop the rows of steps after `step`, which a resumed run writes again."""
        self.restart(step)
        for logger in self.loggers:
            logger.rewind(step)
        if self.path is None or not self.path.exists():
            return
        rows = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
        aside = self.path.with_suffix(".partial")
        aside.write_text("".join(line + "\n" for line in rows))
        os.replace(aside, self.path)

    def training(
        self,
        step: int,
        losses: Mapping[str, float],
        lr: Mapping[str, float],
        skipped: Mapping[str, int] | None = None,
    ) -> None:
        """Record the mean losses, the seconds and the speed since the last row; learning rates;
        where they are counted, the corrupt samples skipped so far, by stream."""
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
                "images_per_second": round(rate, 2),
                "data_wait": round(wait, 4),
                "peak_memory": round(memory, 1),
                **({} if skipped is None else {"skipped": dict(skipped)}),
            }
        )
        # Terms of single classes are for the record alone.
        told = {name: value for name, value in losses.items() if ":" not in name}
        terms = "  ".join(f"{name} {value:.4f}" for name, value in told.items())
        rates = ", ".join(f"{value:.2e}" for value in lr.values())
        log.info(
            f"step {step}/{self.num_steps}  {terms}  lr {rates}  {rate:.1f} images/s  "
            f"wait {wait:.0%}  {memory / 1024:.2f} GiB  {left} left{_told(skipped)}"
        )
        self.restart(step)

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
        rows = [json.loads(line) for line in self.path.read_text().splitlines()]
        return any(row["step"] == step and "losses" not in row for row in rows)

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


def _told(skipped: Mapping[str, int] | None) -> str:
    counts = [f"{count} {stream}" for stream, count in (skipped or {}).items() if count]
    return f"  skipped as corrupt: {', '.join(counts)}" if counts else ""


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")
