"""Where the time of a training step goes: a clock in the engine's phases and the networks.

A stage's forward time is split at the networks' calls, its backward time at the first gradient that
reaches a network's output: what comes before is the loss's, what follows the network's.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...trainers.engine.runtime import unwrap
from ...trainers.engine.steps.engine import Engine
from ...trainers.runs.measuring.workload import Workload

Mark = tuple[str, Any, Any]
"""Name, begin and end, by the clock's `now`."""


@dataclass(frozen=True, kw_only=True)
class PhaseTime:
    """Median milliseconds of a phase of a step. kind: network, loss, optimizer or after (EMA)."""

    stage: str
    kind: str
    milliseconds: float


class PhaseClock:
    """Takes the engine's phases, by the device's own clock."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[Mark] = []
        self.current = ""
        self.reached: Any = None

    def now(self) -> Any:
        """Return a point in time: an event of the GPU's stream, or seconds."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Mark a phase."""
        self.current, self.reached = name, None
        begin = self.now()
        yield
        end = self.now()
        if name.endswith(": backward") and self.reached is not None:
            self.marks.append((f"{name}, network", self.reached, end))
            end = self.reached
        self.marks.append((name, begin, end))
        self.current = ""

    @contextmanager
    def watching(self, networks: Iterable[nn.Module]) -> Iterator[None]:
        """Mark the calls of networks, and the first gradient that reaches the output of one."""
        # Not by hooks: torch.compile traces them, so that networks would be compiled anew.
        before = [(cast(Any, network), network._compiled_call_impl) for network in networks]
        try:
            for network, call in before:
                network._compiled_call_impl = self._timed(call or network._call_impl)
            yield
        finally:
            for network, call in before:
                network._compiled_call_impl = call

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*inputs: Any, **options: Any) -> Any:
            begin = self.now()
            out = call(*inputs, **options)
            self.marks.append((f"{self.current}, network", begin, self.now()))
            logits = out if isinstance(out, Tensor) else out[0]
            if logits.requires_grad:
                logits.register_hook(self._reach)
            return out

        return timed

    def _reach(self, _: Tensor) -> None:
        if self.reached is None:
            self.reached = self.now()

    def take(self) -> dict[str, float]:
        """Return the milliseconds of each name since the last call, and forget them."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        totals: dict[str, float] = {}
        for name, begin, end in self.marks:
            cuda = self.device.type == "cuda"
            elapsed = begin.elapsed_time(end) if cuda else 1e3 * (end - begin)
            totals[name] = totals.get(name, 0.0) + elapsed
        self.marks = []
        return totals


def measure_phases(workload: Workload, engine: Engine, steps: int) -> list[PhaseTime]:
    """Return the phases of an engine's step, the medians of some steps on constant batches."""
    clock = PhaseClock(workload.runtime.device)
    networks = [unwrap(network) for network in workload.method.networks.values()]
    before, engine.phase = engine.phase, clock
    taken: list[dict[str, float]] = []
    try:
        with clock.watching(networks):
            engine.run_step(workload.micro_batches())
            clock.take()
            for _ in range(steps):
                engine.run_step(workload.micro_batches())
                taken.append(clock.take())
    finally:
        engine.phase = before
    median = {name: statistics.median(t[name] for t in taken) for name in taken[0]}
    return _by_kind(median)


def _by_kind(median: dict[str, float]) -> list[PhaseTime]:
    """Tell networks from losses."""
    found = []
    for name, milliseconds in median.items():
        stage, _, phase = name.partition(": ")
        if phase.endswith(", network"):
            phase = phase.removesuffix(", network")
            found.append(PhaseTime(stage=stage, kind=f"network {phase}", milliseconds=milliseconds))
        elif phase == "forward":
            inside = median.get(f"{name}, network", 0.0)
            rest = max(milliseconds - inside, 0.0)
            found.append(PhaseTime(stage=stage, kind="loss forward", milliseconds=rest))
        else:
            kind = "loss backward" if phase == "backward" else phase
            found.append(PhaseTime(stage=stage, kind=kind, milliseconds=milliseconds))
    return found
