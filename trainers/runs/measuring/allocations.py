"""Bytes held during a training step, phase by phase, by three instruments.

`track`: follows every storage that operations make, on any device, also on meta, where nothing is
computed: a model of the step. `profiled`: the CPU allocator's own record, by the profiler, with
what operations hold inside themselves. `on_cuda`: the statistics of the CUDA caching allocator.
"""

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Phase = Callable[[str], AbstractContextManager[Any]]
"""What marks the phases of a step, as `Engine.phase`."""
Step = Callable[[Phase], None]
"""A training step that marks its phases."""


@dataclass(frozen=True, kw_only=True)
class PhaseMemory:
    """Bytes held after a phase, and at most during it."""

    name: str
    after: int
    peak: int


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Return the bytes behind tensors, each storage once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage() for t in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def track(step: Step, held: Iterable[Tensor]) -> list[PhaseMemory]:
    """Follow the storages that a step makes, beside those that are held from the start."""
    found: list[PhaseMemory] = []
    with _Tracker(held) as tracker:

        @contextmanager
        def phase(name: str) -> Iterator[None]:
            tracker.peak = tracker.live
            yield
            found.append(PhaseMemory(name=name, after=tracker.live, peak=tracker.peak))

        step(phase)
    return found


class _Tracker(TorchDispatchMode):
    """Counts the bytes of storages from the operation that returns them until they are freed."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self._known: dict[int, weakref.ref[Any]] = {}
        self.live = self.peak = 0
        for tensor in held:
            self._add(tensor)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return out

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        if address in self._known:
            return

        def freed(_: Any) -> None:
            del self._known[address]
            self.live -= size

        self._known[address] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


def profiled(step: Step, held: Iterable[Tensor]) -> list[PhaseMemory]:
    """Read the CPU allocator's record of a step, on top of what is held from the start."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as recorded:
        step(lambda name: record_function(_MARK + name))
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events: list[Any] = recorded.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    phases = sorted(
        (e.start_ns(), e.end_ns(), e.name().removeprefix(_MARK))
        for e in events
        if e.name().startswith(_MARK)
    )
    timeline, live = [], bytes_of(held)
    start_level = live
    for time, change in changes:
        live += change
        timeline.append((time, live))
    return [_between(timeline, start_level, *times) for times in phases]


_MARK = "warpseg phase: "


def _between(
    timeline: list[tuple[int, int]], start_level: int, start: int, end: int, name: str
) -> PhaseMemory:
    """Return the level at the end of a phase, and the highest one in it."""
    before = [level for time, level in timeline if time < start]
    inside = [level for time, level in timeline if start <= time <= end]
    levels = [before[-1] if before else start_level, *inside]
    return PhaseMemory(name=name, after=levels[-1], peak=max(levels))


def clean_level(device: torch.device) -> int:
    """Free what is garbage, and return the bytes that stay allocated on a GPU; 0 on a CPU."""
    gc.collect()
    if device.type != "cuda":
        return 0
    # The first step that multiplies matrices would be charged with them, the others not.
    cast(Any, torch._C)._cuda_clearCublasWorkspaces()
    return torch.cuda.memory_allocated(device)


def on_cuda(step: Step, device: torch.device, level: int) -> list[PhaseMemory]:
    """Read the statistics of the CUDA allocator around each phase of a step.

    level: bytes that were allocated before anything of the step was made; they do not count.
    """
    found: list[PhaseMemory] = []

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        torch.cuda.reset_peak_memory_stats(device)
        yield
        after, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
        found.append(PhaseMemory(name=name, after=after - level, peak=peak - level))

    step(phase)
    return found
