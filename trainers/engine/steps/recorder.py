"""Record a step once, on a GPU, and have the device replay it."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from .buffers import fill, like
from .draws import recording

Drawn = TypeVar("Drawn", bound=Any)


class CudaRecorder:
    """One CUDA graph, with what the host draws before each of its replays."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.graph = torch.cuda.CUDAGraph()
        self.draws: list[tuple[Callable[[], Any], Any]] = []

    def draw(self, make: Callable[[], Drawn], device: torch.device) -> Drawn:
        """Return buffers of what is drawn, to be filled before each replay."""
        # Nothing runs while a graph is recorded: these stay empty until the first replay.
        buffers = like(make(), device)
        self.draws.append((make, buffers))
        return buffers

    def record(self, work: Callable[[], None]) -> None:
        """Record what `work` launches; none of it runs."""
        before = torch.get_rng_state()
        # Threads that read and decode go on meanwhile: what they ask of CUDA is their affair.
        graph = torch.cuda.graph(self.graph, capture_error_mode="thread_local")
        try:
            with recording(self), graph:
                work()
        finally:
            torch.set_rng_state(before)

    def replay(self) -> None:
        """Draw, and run what was recorded."""
        for make, buffers in self.draws:
            fill(buffers, make().to(self.device, non_blocking=True))
        self.graph.replay()


def recorder_of(device: torch.device) -> CudaRecorder | None:
    """Return what records steps on a device, None where nothing does."""
    return CudaRecorder(device) if device.type == "cuda" else None
