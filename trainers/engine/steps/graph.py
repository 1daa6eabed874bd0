"""The whole step as one graph: recorded when steps have become alike, then replayed.

A graph holds what a step launched: every stage, the losses, the optimizers, the moving averages and
the logged sums. It reads tensors alone, so what changes from step to step lies in tensors that are
filled before each replay: the batches, the learning rates, what the host draws, the numbers that a
method calls `moving`. What a method's stages take from the step's number otherwise is its `regime`;
while that changes, steps run as they are, and a graph is dropped with the regime it was made in.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..runtime import Runtime
from . import recorder
from .buffers import fill, form_of, kept

ALIKE = 3
"""Steps alike that run as they are before one is recorded: memory grows, algorithms are chosen."""

log = logging.getLogger("warpseg")


class Numbers:
    """Numbers by name, in one tensor that graphs read."""

    def __init__(self, values: Mapping[str, float], device: torch.device) -> None:
        self.names = list(values)
        # A GPU's optimizers read their rates in single precision, a CPU's in double.
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        self.tensor = torch.zeros(len(values), dtype=dtype, device=device)

    def fill(self, values: Mapping[str, float]) -> None:
        """Set the numbers, without waiting for the device."""
        if self.names:
            new = torch.tensor([values[name] for name in self.names], dtype=self.tensor.dtype)
            if self.tensor.is_cuda:
                new = new.pin_memory()
            self.tensor.copy_(new, non_blocking=True)

    def by_name(self) -> dict[str, Tensor]:
        """Return 0-d tensors."""
        return dict(zip(self.names, self.tensor.unbind(), strict=True))


class StepGraph:
    """Runs steps: as they are, or by a graph where they are alike. `refused` says why never."""

    def __init__(self, device: torch.device, refused: str = "") -> None:
        self.device = device
        self.refused = ""
        self.key: Hashable = None
        self.seen = 0
        self.recorded: Any = None
        self.batches: Any = None
        self.numbers = Numbers({}, device)
        if refused:
            self.refuse(refused)

    def refuse(self, reason: str) -> None:
        """Run all further steps as they are, and say why."""
        self.drop()
        self.refused = reason
        log.info(f"steps are launched one by one, not as one graph: {reason}")

    def drop(self) -> None:
        """Forget the graph: what it reads may lie elsewhere now."""
        self.key, self.seen = None, 0
        self.recorded = self.batches = None

    def replay(
        self, micro_batches: Sequence[Any], regime: Hashable, numbers: Mapping[str, float]
    ) -> bool:
        """Replay the step if there is a graph of its like; count what is alike."""
        try:
            key = (regime, form_of(list(micro_batches)), tuple(numbers))
        except TypeError as error:
            self.refuse(f"a batch holds {error}, whose tensors are not known")
            return False
        if key != self.key:
            self.drop()
            self.key = key
        self.seen += 1
        return self.recorded is not None and self.run(micro_batches, numbers)

    def run(self, micro_batches: Sequence[Any], numbers: Mapping[str, float]) -> bool:
        """Replay the graph there is on batches and numbers; return True."""
        fill(self.batches, list(micro_batches))
        self.numbers.fill(numbers)
        self.recorded.replay()
        return True

    @property
    def ripe(self) -> bool:
        """Whether enough steps were alike."""
        return self.recorded is None and not self.refused and self.seen > ALIKE

    def record(
        self,
        work: Callable[[list[Any], dict[str, Tensor]], None],
        micro_batches: Sequence[Any],
        numbers: Mapping[str, float],
    ) -> bool:
        """Record a step of batches and numbers in tensors of their own; tell whether it could be.

        Nothing of it has run then: `run` runs it.
        """
        made = recorder.recorder_of(self.device)
        assert made is not None
        buffers = kept(list(micro_batches))
        self.numbers = Numbers(numbers, self.device)
        try:
            made.record(lambda: work(copied(buffers), self.numbers.by_name()))
        except Exception as error:  # whatever it is, the step can run as it is
            reason = str(error).strip().split("\n")[0]
            self.refuse(f"it could not be recorded ({type(error).__name__}: {reason})")
            return False
        self.recorded, self.batches = made, buffers
        return True


def copied(batches: list[Any]) -> list[Any]:
    """Return the batches for stages, which may add entries to them."""
    return [dict(batch) for batch in batches]


def graph_of(runtime: Runtime, optimizers: Iterable[torch.optim.Optimizer]) -> StepGraph | None:
    """Return what runs the steps of a run as graphs; None where there are none, or none are wanted.

    Ranks exchange gradients while others are computed, unless they are told to do it at once
    (`step_graph_ranks`), and compiled passes may be graphs already.
    """
    speed = runtime.speed
    if recorder.recorder_of(runtime.device) is None or not speed.step_graph or speed.cuda_graphs:
        return None
    if runtime.world_size > 1 and not speed.step_graph_ranks:
        reason = "several ranks exchange gradients as they come (--speed.step-graph-ranks)"
        return StepGraph(runtime.device, reason)
    if not all(group.get("fused") for o in optimizers for group in o.param_groups):
        return StepGraph(runtime.device, "only fused optimizers read their rates on the device")
    return StepGraph(runtime.device)


@contextmanager
def capturable(optimizers: Iterable[torch.optim.Optimizer], device: torch.device) -> Iterator[None]:
    """Let the steps of optimizers be recorded inside."""
    groups = [group for o in optimizers for group in o.param_groups if "capturable" in group]
    groups = [group for group in groups if device.type == "cuda"]
    try:
        for group in groups:
            group["capturable"] = True
        yield
    finally:
        for group in groups:
            group["capturable"] = False
