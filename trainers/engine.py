"""The engine: it runs the stages of a method in order, and owns everything that is not the method.

A method is a list of stages. A stage names its loss function and what follows its backward pass:
nothing, or the step of an optimizer and a hook. Stages up to and including one with an optimizer
form a group: their gradients add up, are synchronised over the ranks once, in the group's last
backward pass, and feed one optimizer step. Each stage's graph is freed by its backward pass before
the next stage runs, so the peak memory of a step is that of its largest stage.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from .optimization import OptimizerSettings, ScheduleSettings, build_optimizer, lr_factor
from .runtime import Runtime, unwrap

Batches = Mapping[str, Any]
"""One batch of each stream that a method asked for, by the stream's name."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a training step.

    `loss(batches, step)` returns named 0-d tensors; "loss" is differentiated, the others are
    logged. With an `optimizer`, the gradients gathered so far make one step of it; then
    `after(step)` runs, without gradients.
    """

    name: str
    loss: Callable[[Batches, int], dict[str, Tensor]]
    optimizer: str | None = None
    after: Callable[[int], None] | None = None


class Method:
    """What the engine needs of a method: networks, optimizers, stages.

    networks:   all modules whose state belongs to the run, by name; checkpoints hold each.
    optimized:  optimizer name -> the names of the networks that it trains.
    evaluated:  the name of the network that is scored, exported and used for prediction.
    stages:     in the order of the paper.
    """

    networks: dict[str, nn.Module]
    optimized: dict[str, tuple[str, ...]]
    evaluated: str
    stages: Sequence[Stage]


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
        self.schedule = schedule
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
        self.sums: dict[str, Tensor] = {}
        self.summed = 0

    @property
    def lr_factor(self) -> float:
        """Learning rate of the coming step as a fraction of its base value."""
        return lr_factor(self.schedule, self.step, self.num_steps, self.epoch_steps)

    def run_step(self, micro_batches: Sequence[Batches]) -> None:
        """Run one training step on `accumulate` batches: every stage, and the optimizer steps they
        ask for."""
        self.runtime.seed(self.seed, self.step)
        factor = self.lr_factor
        for group in self.groups:
            for number, batches in enumerate(micro_batches):
                last_batch = number == len(micro_batches) - 1
                for stage in group:
                    self._backward(stage, batches, sync=last_batch and stage is group[-1])
            self._optimize(group[-1], factor)
        self.scaler.update()
        self.step += 1
        self.summed += 1

    def _backward(self, stage: Stage, batches: Batches, sync: bool) -> None:
        with nullcontext() if sync else self.runtime.without_sync():
            with record_function(f"{stage.name}: forward"), self.runtime.autocast():
                terms = stage.loss(batches, self.step)
            with record_function(f"{stage.name}: backward"):
                self.scaler.scale(terms["loss"] / self.accumulate).backward()
        for name, value in terms.items():
            key = stage.name if name == "loss" else f"{stage.name}/{name}"
            value = value.detach().float() / self.accumulate
            self.sums[key] = self.sums[key] + value if key in self.sums else value

    def _optimize(self, stage: Stage, factor: float) -> None:
        assert stage.optimizer is not None
        optimizer = self.optimizers[stage.optimizer]
        with record_function(f"{stage.name}: optimizer"):
            for group, lr in zip(
                optimizer.param_groups, self.base_lr[stage.optimizer], strict=True
            ):
                group["lr"] = lr * factor
            self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        if stage.after is not None:
            with record_function(f"{stage.name}: after"), torch.no_grad():
                stage.after(self.step)

    def means(self) -> dict[str, float]:
        """Return the mean of every logged term since the last call, over steps and ranks.

        A synchronisation point of host and device.
        """
        if not self.summed:
            return {}
        stacked = torch.stack(list(self.sums.values())) / self.summed
        values = self.runtime.average(stacked).tolist()
        means = dict(zip(self.sums, values, strict=True))
        self.sums, self.summed = {}, 0
        return means

    def finite(self) -> bool:
        """Tell whether every term logged since the last means is a number. A synchronisation
        point."""
        return not self.sums or bool(torch.isfinite(torch.stack(list(self.sums.values()))).all())

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the coming steps depend on: tensors and plain values."""
        return {
            "step": self.step,
            "networks": {k: unwrap(v).state_dict() for k, v in self.method.networks.items()},
            "optimizers": {k: v.state_dict() for k, v in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "sums": dict(self.sums),
            "summed": self.summed,
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
        self.summed = state["summed"]


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
