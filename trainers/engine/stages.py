"""The engine: it runs the stages of a method in order, and owns everything that is not the method.

A method is a list of stages. A stage names its loss function and what follows its backward pass:
nothing, or the step of an optimizer and a hook. Stages up to and including one with an optimizer
form a group: their gradients add up, are synchronised over the ranks once, in the group's last
backward pass, and feed one optimizer step. Each stage's graph is freed by its backward pass before
the next stage runs, so the peak memory of a step is that of its largest stage.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from ...models import Ensemble
from ...models.tensor_files import not_finite
from .mode_gap import log_gap
from .optimization import OptimizerSettings, ScheduleSettings, build_optimizer, lr_factor
from .runtime import Runtime, unwrap
from .steps.launches import Launches
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

    def __init__(self, settings: Any, runtime: Runtime, num_classes: int) -> None:
        """Build all of these; each method has its own."""

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
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
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
        self.step += 1

    def _backward(self, stage: Stage, batches: Batches, sync: bool) -> bool:
        """Run a stage forward and backward; tell whether it took part in this step."""
        with nullcontext() if sync else self.runtime.without_sync():
            forward = self.phase(f"{stage.name}: forward")
            with forward, self.launches.passes(), self.runtime.autocast():
                terms = stage.loss(batches, self.step)
            if terms is None:
                return False
            with self.phase(f"{stage.name}: backward"), self.launches.gradients():
                self.scaler.scale(terms["loss"] / self.accumulate).backward()
        for name, value in terms.items():
            key = stage.name if name == "loss" else f"{stage.name}/{name}"
            value = value.detach().float()
            self.sums[key] = self.sums[key] + value if key in self.sums else value
            self.counts[key] = self.counts.get(key, 0) + 1
        return True

    def _optimize(self, stage: Stage) -> None:
        assert stage.optimizer is not None
        optimizer = self.optimizers[stage.optimizer]
        with self.phase(f"{stage.name}: optimizer"):
            self.launches.end()
            rates = self.lr(stage.optimizer)
            for group, lr in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = lr
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
        if not self.sums:
            return {}
        # A term of one value for each class is logged as many, `name:0`, `name:1`, ...
        names = {
            f"{name}:{place}" if value.ndim else name: self.counts[name]
            for name, value in self.sums.items()
            for place in range(value.numel())
        }
        sums = self.runtime.average(self._joined_sums()).tolist()
        means = {name: total / names[name] for name, total in zip(names, sums, strict=True)}
        self.sums, self.counts = {}, {}
        return means

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
        return not self.sums or bool(torch.isfinite(self._joined_sums()).all())

    def _joined_sums(self) -> Tensor:
        return torch.cat([value.reshape(-1) for value in self.sums.values()])

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
            "sums": dict(self.sums),
            "counts": dict(self.counts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        for name, network in self.method.networks.items():
            unwrap(network).load_state_dict(state["networks"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.sums = {name: value.to(self.runtime.device) for name, value in state["sums"].items()}
        self.counts = dict(state["counts"])


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
