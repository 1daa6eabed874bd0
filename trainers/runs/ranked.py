"""What the ranks of a run tell each other: why one of them ends, and that a signal came to one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIG_IGN, SIGTERM, signal

from ..engine.processes.ranks import announce, explain
from ..engine.processes.stopping import Stop, terminating
from ..engine.runtime import Runtime

LOOK_EVERY = 2.0
"""Seconds between the steps at which ranks ask each other whether to stop."""


@contextmanager
def as_rank(runtime: Runtime, out: Path) -> Iterator[None]:
    """Let the other ranks, if there are any, know why this one ends.

    torchrun ends all ranks as soon as one is gone; they say whose end it was first.
    """
    if runtime.world_size == 1:
        yield
        return
    announce(runtime.rank)
    own = told = None
    with terminating():
        try:
            runtime.barrier()  # so that each can be asked when another one fails
            yield
        except BaseException as error:
            own, told = error, explain(error, out, runtime.rank, runtime.world_size)
    if told is not None:
        if told is own:
            raise told
        with suppress(ValueError):  # in another thread than the main one
            signal(SIGTERM, SIG_IGN)
        raise told from own


class Agreement:
    """Whether the ranks stop, decided by all at the same step.

    number: the signal that they agreed on; 0 where there is none, and on one rank.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.number = runtime, 0
        self._next, self._asked = 0, (0, time.perf_counter())

    def stops(self, stop: Stop, step: int) -> bool:
        """Tell whether a signal came to any rank.

        Ranks ask each other every LOOK_EVERY seconds, at steps on which they agreed the time
        before: asking makes each wait for its device.
        """
        if self.runtime.world_size == 1:
            return stop()
        now = time.perf_counter()
        if step < self._next:
            return False
        before, then = self._asked
        seconds = (now - then) / max(step - before, 1)
        number = float(getattr(stop, "number", 0)) if stop() else 0.0
        asked, slowest = self.runtime.largest(number, seconds)
        self.number = int(asked)
        self._asked = step, time.perf_counter()
        self._next = step + max(1, int(LOOK_EVERY / max(slowest, 1e-6)))
        return bool(asked)
