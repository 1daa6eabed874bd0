"""What a method is to the engine: networks, streams, and stages in order.

A stage names its loss function and what follows its backward pass: nothing, or the step of an
optimizer and a hook. Stages up to and including one with an optimizer form a group: their gradients
add up, are synchronised over the ranks once, in the group's last backward pass, and feed one
optimizer step. Each stage's graph is freed by its backward pass before the next stage runs, so the
peak memory of a step is that of its largest stage.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from ...models import Ensemble
from .optimization import ScheduleSettings
from .runtime import Runtime, unwrap
from .streams import Batches, StreamSpec


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a training step.

    `loss(batches, step)` returns named 0-d tensors; "loss" is differentiated, the others are
    logged, and may be (C,), one value for each class. None skips the stage at this step, on all
    ranks alike, with all that follows it. With an `optimizer`, the gradients gathered so far make
    one step of it; then `after(step)` runs, without gradients.
    """

    name: str
    loss: Callable[[Batches, int], dict[str, Tensor] | None]
    optimizer: str | None = None
    after: Callable[[int], None] | None = None


class Method:
    """What the engine needs of a method: networks, optimizers, stages.

    networks:   all modules whose state belongs to the run, by name; checkpoints hold each.
    optimized:  optimizer name -> the names of the networks that it trains.
    schedules:  optimizer name -> its schedule, where it is not the run's.
    streams:    the streams it reads, by name.
    evaluated:  the name of the network that is scored, exported and used for prediction.
    also_evaluated: networks and ensembles that are scored beside it at the end of the run.
    ensembles:  name -> the networks whose mean probabilities answer to it.
    stages:     in the order of the paper.
    joins_batches: whether images of all its streams pass the networks together.
    moved:      while a step is recorded, what `moving` names, as 0-d tensors; else nothing.
    """

    networks: dict[str, nn.Module]
    optimized: dict[str, tuple[str, ...]]
    schedules: Mapping[str, ScheduleSettings] = MappingProxyType({})
    streams: dict[str, StreamSpec]
    evaluated: str
    also_evaluated: tuple[str, ...] = ()
    ensembles: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    stages: Sequence[Stage]
    joins_batches: ClassVar[bool] = False
    moved: Mapping[str, Tensor] = MappingProxyType({})

    def __init__(self, settings: Any, runtime: Runtime, num_classes: int) -> None:
        """Build all of these; each method has its own."""

    def regime(self, step: int) -> Hashable | None:
        """Return what the stages take from the number of a step: steps of one regime launch the
        same, with the same numbers but for those that are `moving`, and may be one recorded graph.
        () where the stages do not look at the number; None where steps are not to be recorded, as
        by default: what else they read on the host, a record would not follow.
        """
        return None

    def moving(self, step: int) -> Mapping[str, float]:
        """Return numbers of a step that change within a regime; stages find them in `moved`."""
        return {}

    def concerns(self, means: Mapping[str, float]) -> dict[str, str]:
        """Say what the mean logged terms (by their names in the log) should worry the user about,
        a sentence by a short name; each is said once in a run."""
        return {}

    def find_network(self, name: str) -> nn.Module:
        """Return a network, or an ensemble of them, without distributed wrappers."""
        if name in self.ensembles:
            return Ensemble(self.find_network(member) for member in self.ensembles[name])
        return unwrap(self.networks[name])


def group_stages(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Cut the stages behind each optimizer step. Raise ValueError when the last stage has none."""
    groups: list[list[Stage]] = [[]]
    for stage in stages:
        groups[-1].append(stage)
        if stage.optimizer is not None:
            groups.append([])
    if groups.pop():
        raise ValueError(f"stage {stages[-1].name!r} comes last and needs an optimizer")
    return groups
