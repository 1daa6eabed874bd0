"""How far something is: a bar on a terminal, plain lines now and then elsewhere.

Messages of the program's log go above an open bar (`above_bars`), so neither breaks the other.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from tqdm import tqdm

log = logging.getLogger("warpseg")

PAUSE = 10.0
"""Least seconds between two plain lines, where no others are asked for."""

_open: list[Progress] = []


class Progress:
    """A count of `total` things, shown on standard error; a context manager.

    On a terminal a bar is there from the first moment, and what is being done beside it. Elsewhere
    lines are written where `lines` are asked for: at once, then every `pause` seconds.
    With `quiet` nothing is shown, as on ranks that only take part. With `estimate` lines say how
    long the rest takes, as a bar does.
    """

    def __init__(
        self,
        total: int,
        *,
        unit: str,
        start: int = 0,
        lines: bool = False,
        pause: float = PAUSE,
        quiet: bool = False,
        estimate: bool = False,
    ) -> None:
        self.estimate, self.begun = estimate, 0.0
        self.total, self.unit, self.done, self.pause = total, unit, start, pause
        self.lines = lines and not quiet
        self.told = float("-inf")
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self.bar: Any = None
        if terminal and not quiet:
            self.bar = tqdm(
                total=total,
                initial=start,
                unit=unit,
                file=sys.stderr,
                dynamic_ncols=True,
                leave=False,
                # The first second of a run is no measure of the others.
                smoothing=0.05,
            )
            self.lines = False
            _open.append(self)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def say(self, doing: str) -> None:
        """Show beside the bar what is being done, at once."""
        if self.bar is not None:
            self.bar.set_description(doing)

    def reach(self, done: int) -> None:
        """Show that so many of the things are done."""
        if self.bar is not None:
            self.bar.update(done - self.done)
        self.done = done
        now = time.monotonic()
        self.begun = self.begun or now
        if self.lines and self.total and now - self.told >= self.pause:
            self.told = now
            log.info(f"{done} of {self.total} {self.unit}s{self._left(now)}")

    def _left(self, now: float) -> str:
        """Say how long the rest takes, once something is done."""
        if not self.estimate or not self.done:
            return ""
        seconds = (now - self.begun) * (self.total - self.done) / self.done
        return f", about {timedelta(seconds=round(seconds))} left"

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
            _open.remove(self)


@contextmanager
def above_bars() -> Iterator[None]:
    """Hold bars back while something else is written to the terminal."""
    if not _open:
        yield
        return
    with tqdm.external_write_mode(file=sys.stderr):
        yield
