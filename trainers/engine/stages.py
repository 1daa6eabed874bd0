"""The engine: it runs the stages of a method in order, and owns everything that is not the method.

A method is a list of stages. A stage names its loss function and what follows its backward pass:
nothing, or the step of an optimizer and a hook. Stages up to and including one with an optimizer
form a group: their gradients add up, are synchronised over the ranks once, in the group's last
backward pass, and feed one optimizer step. Each stage's graph is freed by its backward pass before
the next stage runs, so the peak memory of a step is that of its largest stage.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from ...models import Ensemble
from ...models.tensor_files import not_finite
from .norms.mode_gap import log_gap
from .optimization import OptimizerSettings, ScheduleSettings, build_optimizer, lr_factor
from .runtime import Runtime, unwrap
from .steps.graph import StepGraph, capturable, graph_of
from .steps.launches import Launches
from .steps.terms import Terms
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


class Engine:
    """Run training steps of a method."""

    def __init__(
        self,
        method: Method,
        runtime: Runtime,
        *,
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
        num_steps: int,
        epoch_steps: int = 1,
        accumulate: int = 1,
        seed: int = 0,
    ) -> None:
        self.method = method
        self.runtime = runtime
        self.schedules = dict.fromkeys(method.optimized, schedule) | dict(method.schedules)
        self.num_steps = num_steps
        self.epoch_steps = epoch_steps
        self.accumulate = accumulate
        self.seed = seed
        self.step = 0
        self.scaler = runtime.scaler()
        self.groups = group_stages(method.stages)
        self.optimizers = {
            name: build_optimizer([unwrap(method.networks[n]) for n in trained], optimizer)
            for name, trained in method.optimized.items()
        }
        self.base_lr = {
            name: [group["lr"] for group in built.param_groups]
            for name, built in self.optimizers.items()
        }
        self.launches = Launches(method.networks.values(), self.optimizers.values(), runtime)
        self.graph: StepGraph | None = graph_of(runtime, self.optimizers.values())
        self.rates: Mapping[str, Tensor] = {}
        # What a recorded step leaves on the host: terms logged, and optimizers that stepped.
        self.told: dict[str, int] = {}
        self.stepped: list[str] = []
        self.terms = Terms(runtime)
        self.one = torch.ones((), device=runtime.device)
        # What marks the phases of a step; a benchmark puts its clock here.
        self.phase: Callable[[str], AbstractContextManager[Any]] = record_function

    def lr(self, optimizer: str) -> list[float]:
        """Learning rates of the coming step of an optimizer, one for each parameter group."""
        schedule = self.schedules[optimizer]
        factor = lr_factor(schedule, self.step, self.num_steps, self.epoch_steps)
        return [base * factor for base in self.base_lr[optimizer]]

    def run_step(self, micro_batches: Sequence[Batches]) -> None:
        """Run every stage, and the optimizer steps they ask for, on `accumulate` batches."""
        self.runtime.speed.begin_step()
        self.runtime.seed(self.seed, self.step)
        if not self._replay(micro_batches):
            self._work(micro_batches)
        self.step += 1

    def _work(self, micro_batches: Sequence[Batches]) -> None:
        for group in self.groups:
            ran = False
            self.launches.begin()
            for number, batches in enumerate(micro_batches):
                last_batch = number == len(micro_batches) - 1
                for stage in group:
                    ran = self._backward(stage, batches, last_batch and stage is group[-1])
            if ran:
                self._optimize(group[-1])
        self.scaler.update()
        self.runtime.average_buffers(self.method.networks.values())

    def _replay(self, micro_batches: Sequence[Batches]) -> bool:
        """Replay the step as a graph, recorded now if need be; tell whether it was."""
        graph = self.graph
        # A clock of phases looks at steps as they run.
        if graph is None or graph.refused or self.phase is not record_function:
            return False
        kind = type(self.method)
        # What a class says of its stages need not be true of another's that extends it.
        regime = self.method.regime(self.step) if "regime" in vars(kind) else None
        if regime is None:
            graph.refuse(f"{kind.__name__} does not say which of its steps are alike (regime)")
            return False
        numbers = {**self._numbered_rates(), **self.method.moving(self.step)}
        replayed = graph.replay(micro_batches, regime, numbers)
        if not replayed and graph.ripe and graph.record(self._record, micro_batches, numbers):
            replayed = graph.run(micro_batches, numbers)
        if replayed:
            self.terms.count(self.told)
            for name in self.stepped:
                self._set_rates(name, self.lr(name))
        return replayed

    def _numbered_rates(self) -> dict[str, float]:
        return {
            f"{name}/{place}": rate
            for name in self.optimizers
            for place, rate in enumerate(self.lr(name))
        }

    def _set_rates(self, optimizer: str, rates: Sequence[Any]) -> None:
        for group, lr in zip(self.optimizers[optimizer].param_groups, rates, strict=True):
            group["lr"] = lr

    def _record(self, micro_batches: list[Batches], numbers: dict[str, Tensor]) -> None:
        """Go through a step while it is recorded: nothing of it runs, and the host's part of it is
        taken back."""
        counts, self.terms.counts, self.stepped = self.terms.counts, {}, []
        self.rates, self.method.moved = numbers, numbers
        self.terms.closed = True
        try:
            with capturable(self.optimizers.values(), self.runtime.device):
                self._work(micro_batches)
            self.told = self.terms.counts
        except Exception:
            # What the scaler noted of a step that was broken off.
            if self.scaler.is_enabled():
                self.scaler._per_optimizer_states.clear()
            raise
        finally:
            self.terms.counts, self.rates, self.method.moved = counts, {}, {}
            self.terms.closed = False
            for name in self.stepped:
                self._set_rates(name, self.lr(name))
            for optimizer in self.optimizers.values():
                optimizer.zero_grad()
            self.launches.reset()

    @contextmanager
    def eagerly(self) -> Iterator[None]:
        """Run the steps inside as they are, not by a graph."""
        held, self.graph = self.graph, None
        try:
            yield
        finally:
            self.graph = held

    def _backward(self, stage: Stage, batches: Batches, sync: bool) -> bool:
        """Run a stage forward and backward; tell whether it took part in this step."""
        with nullcontext() if sync else self.runtime.without_sync():
            forward = self.phase(f"{stage.name}: forward")
            with forward, self.launches.passes(), self.runtime.autocast():
                terms = stage.loss(batches, self.step)
            if terms is None:
                return False
            with self.phase(f"{stage.name}: backward"), self.launches.gradients():
                loss = terms["loss"] if self.accumulate == 1 else terms["loss"] / self.accumulate
                loss = self.scaler.scale(loss)
                loss.backward(self.one if loss.dtype == torch.float32 else None)
        names = {"loss": stage.name}
        self.terms.add({names.get(n, f"{stage.name}/{n}"): value for n, value in terms.items()})
        return True

    def _optimize(self, stage: Stage) -> None:
        assert stage.optimizer is not None
        optimizer = self.optimizers[stage.optimizer]
        with self.phase(f"{stage.name}: optimizer"):
            self.launches.end()
            rates: Sequence[Any] = self.lr(stage.optimizer)
            if self.rates:  # recorded: in tensors that are filled before each replay
                rates = [self.rates[f"{stage.optimizer}/{n}"] for n, _ in enumerate(rates)]
                self.stepped.append(stage.optimizer)
            self._set_rates(stage.optimizer, rates)
            self.scaler.step(optimizer)
            # To None, the default; apex's optimizers take no argument here.
            optimizer.zero_grad()
        if stage.after is not None:
            with self.phase(f"{stage.name}: after"), torch.no_grad():
                stage.after(self.step)

    def means(self) -> dict[str, float]:
        """Return the mean of every logged term since the last call, over batches and ranks.

        A synchronisation point of host and device.
        """
        return self.terms.means()

    def gap(self, batches: Batches) -> dict[str, float]:
        """Return how far the evaluated network's two modes differ on a batch, the mean over ranks
        (see `mode_gap`). A synchronisation point of host and device, and of the ranks."""
        network = self.method.networks.get(self.method.evaluated)
        terms = {} if network is None else log_gap(unwrap(network), batches, self.runtime)
        if not terms:
            return {}
        values = self.runtime.average(torch.stack(list(terms.values()))).tolist()
        return dict(zip(terms, values, strict=True))

    def finite(self) -> bool:
        """Tell whether every term logged since the last means is a number. A synchronisation
        point."""
        return self.terms.finite()

    def spoiled(self) -> str | None:
        """Name the first weight, as network.weight, that is NaN or infinite; None where all are
        numbers. A synchronisation point."""
        for name, network in self.method.networks.items():
            found = not_finite(unwrap(network).state_dict())
            if found is not None:
                return f"{name}.{found}"
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the coming steps depend on: tensors and plain values."""
        return {
            "step": self.step,
            "networks": {k: unwrap(v).state_dict() for k, v in self.method.networks.items()},
            "optimizers": {k: v.state_dict() for k, v in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            **self.terms.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        if self.graph is not None:
            self.graph.drop()
        for name, network in self.method.networks.items():
            unwrap(network).load_state_dict(state["networks"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.terms.load_state_dict(state)


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
