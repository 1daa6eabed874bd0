"""SIGTERM and Ctrl-C as a wish: what is being done comes to a good end first."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Stop = Callable[[], bool]
"""Tells whether work shall stop."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_HINT = b"stopping: what is done is saved first; Ctrl-C again stops at once\n"


class Stopped(Exception):
    """Work stopped because it was asked to; the text says what is kept and how to go on.

    `exit_status` is that of a program which the signal ended: 143 for SIGTERM, 130 for Ctrl-C.
    """

    def __init__(self, message: str = "", number: int = signal.SIGTERM) -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_status(self) -> int:
        """Exit status of the program."""
        return 128 + self.number


class Wish:
    """Whether a signal asked for a stop, and which."""

    def __init__(self) -> None:
        self.came: list[int] = []

    def __call__(self) -> bool:
        """Tell whether one came."""
        return bool(self.came)

    @property
    def number(self) -> int:
        """The first signal that came; SIGTERM where somebody else's work was stopped."""
        return self.came[0] if self.came else signal.SIGTERM


_open: list[Wish] = []
"""Blocks inside one another; the innermost listens and tells those outside when it ends."""


def never() -> bool:
    """Do not stop."""
    return False


@contextmanager
def terminating() -> Iterator[Wish]:
    """Give a function that tells whether SIGTERM or Ctrl-C came since; a second Ctrl-C raises
    KeyboardInterrupt at once. The old handlers come back after.

    In other threads than the main one signals are not heard, and nothing asks for a stop.
    """
    wish = Wish()
    if _open:
        wish.came += _open[-1].came

    def remember(number: int, frame: FrameType | None) -> None:
        again = number == signal.SIGINT and signal.SIGINT in wish.came
        wish.came.append(number)
        if again:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            os.write(2, _HINT)

    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before: list[Any] = [signal.signal(number, remember) for number in _SIGNALS]
    _open.append(wish)
    try:
        yield wish
    finally:
        _open.pop()
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)
        if _open:
            _open[-1].came = wish.came
