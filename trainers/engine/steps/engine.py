"""The engine: it runs the stages of a method in order, and owns all that is not the method."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from ....models.tensor_files import not_finite
from ..norms.mode_gap import log_gap
from ..optimization import OptimizerSettings, ScheduleSettings, build_optimizer, lr_factor
from ..runtime import Runtime, unwrap
from ..stages import Method, Stage, group_stages
from ..streams import Batches
from .graph import StepGraph, capturable, graph_of
from .launches import Launches
from .terms import Terms


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
            self.runtime.average_gradients(p for g in optimizer.param_groups for p in g["params"])
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
