"""What a step draws on the host: numbers of the boxes that mix images, a few for each.

A step that is replayed as a graph does not come by here again. What was drawn while it was recorded
is drawn anew before each replay, in the same order, into the tensors that the graph reads.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

Drawn = TypeVar("Drawn", bound=Any)


class Recorder(Protocol):
    """What records a step."""

    def draw(self, make: Callable[[], Drawn], device: torch.device) -> Drawn:
        """Return what is drawn, on the device, and remember how it is."""
        ...


_recorders: list[Recorder] = []


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Hand what is drawn inside to a recorder."""
    _recorders.append(recorder)
    try:
        yield
    finally:
        _recorders.pop()


def drawn(make: Callable[[], Drawn], device: torch.device) -> Drawn:
    """Draw something with a method `to` by torch's generator of the CPU; return it on the device.

    make: draws it, from nothing that changes from step to step.
    """
    if _recorders:
        return _recorders[-1].draw(make, device)
    return make().to(device, non_blocking=True)
