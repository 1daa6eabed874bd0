"""What a GPU does in some steps, by the profiler: launches of the host, kernels, and idle time."""

# pyright: reportPrivateImportUsage=false

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

Interval = tuple[float, float]
"""Begin and end, microseconds."""
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpy", "cudaMemset")
"""Beginnings of the names of what the host asks a GPU for."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Means over some steps."""

    launches: float
    """Calls by which the host launched something."""
    kernels: float
    """Kernels and copies that the GPU ran."""
    busy_ms: float
    """Milliseconds in which at least one of them ran."""
    idle_share: float
    """Share of the time, from the first to the last of them, in which none ran."""


def trace_steps(step: Callable[[], object], steps: int, device: torch.device) -> Trace | None:
    """Profile some steps on a GPU; None elsewhere."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            step()
        torch.cuda.synchronize(device)
    return trace_of(profiler.events() or (), steps)


def trace_of(events: Iterable[Any], steps: int) -> Trace:
    """Return what the events of a profiler say of a step."""
    events = list(events)
    launches = sum(event.name.startswith(LAUNCHES) for event in events)
    ran = [
        (float(event.time_range.start), float(event.time_range.end))
        for event in events
        if event.device_type == DeviceType.CUDA
    ]
    busy = covered(ran)
    ends = [end for _, end in ran]
    whole = max(ends) - min(start for start, _ in ran) if ran else 0.0
    return Trace(
        launches=launches / steps,
        kernels=len(ran) / steps,
        busy_ms=busy / steps / 1e3,
        idle_share=1 - busy / whole if whole else 0.0,
    )


def covered(intervals: Iterable[Interval]) -> float:
    """Return how long at least one of the intervals lasts."""
    total, last = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, last))
        last = max(last, end)
    return total
