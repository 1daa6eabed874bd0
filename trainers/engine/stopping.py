"""SIGTERM as a wish: what is being done comes to a good end first."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Stop = Callable[[], bool]
"""Tells whether work shall stop."""


class Stopped(Exception):
    """Work stopped because it was asked to; what is finished is kept."""


def never() -> bool:
    """Do not stop."""
    return False


@contextmanager
def terminating() -> Iterator[Stop]:
    """Give a function that tells whether SIGTERM came since; the old handler comes back after."""
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = signal.signal(signal.SIGTERM, remember)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)
