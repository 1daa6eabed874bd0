"""The contenders of `warpseg bench step`: our step and plain ones, with and without a loader.

A plain step becomes a contender once its losses are ours, from the same weights and batches.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ...shards import Dataset
from ...trainers.engine.steps.engine import Engine
from ...trainers.engine.streams import Batches, next_batches, open_streams
from ...trainers.runs.measuring.workload import Workload, held_between_steps
from ..timing import fault_of
from ..words.given import Arithmetic
from .plain import plain_step
from .plain_loader import PlainLoader
from .plain_step import PlainSupervised, plain_batches

TOLERANCE = {"fp32": 2e-3, "bf16": 5e-2, "fp16": 2e-2}
"""Greatest relative difference of the plain step's losses, by our precision."""


@dataclass(kw_only=True)
class Row:
    """A contender's measurements, one number a window."""

    name: str
    images: int
    images_per_second: list[float] = field(default_factory=list)
    cpu_ms_per_image: list[float] = field(default_factory=list)
    launches: int | None = None
    """Operations that PyTorch dispatches in a step, views and allocations left out; None on a GPU,
    where `trace` counts what the host launches."""
    peak_memory: int | None = None
    """Most bytes on the device: networks, optimizer state, batches, and what a step allocates;
    without the other contenders' and without what a loader keeps ready."""
    fault: str = ""
    """What went wrong, where the contender does not run, or computes something else."""

    @property
    def rate(self) -> float | None:
        """Median images/s; None where no window was timed."""
        return statistics.median(self.images_per_second) if self.images_per_second else None

    def attempt(self, work: Callable[[], object]) -> None:
        """Do some work of the contender, unless it failed before; note where it fails now."""
        if not self.fault:
            try:
                work()
            except Exception as error:  # whatever it is, the others go on
                self.fault = fault_of(error)


@dataclass(frozen=True)
class Contender:
    """Something that makes steps, and what it holds between them; of one with a loader, what takes
    the batches that lie ready, and the ids of its worker processes."""

    row: Row
    step: Callable[[], object]
    held: Callable[[], list[Tensor]]
    drain: Callable[[], object] = list
    pids: Callable[[], list[int]] = list


def check_plain(
    workload: Workload, engine: Engine, arithmetics: Sequence[Arithmetic], classes: int
) -> dict[str, PlainSupervised]:
    """Return the plain implementations, from our weights, once their losses are ours."""
    device, plains = workload.runtime.device, {}
    for arithmetic in arithmetics:
        made = plain_step(workload.settings, classes, device, arithmetic)
        if made is None:
            print(f"{workload.recipe} has no plain implementation to compare with")
            break
        made.load(workload.method.networks)
        plains[f"plain PyTorch, {arithmetic}"] = made
    seed = (workload.settings.seed, engine.step)
    engine.run_step(workload.micro_batches())
    ours = engine.means()
    batches = plain_batches(workload.batches)
    for name, plain in plains.items():
        workload.runtime.seed(*seed)
        for stage, value in plain.run(batches).items():
            error = abs(value.item() - ours[stage]) / max(abs(ours[stage]), 1e-6)
            least = TOLERANCE["fp32" if plain.arithmetic == "fp32" else "bf16"]
            if error > max(TOLERANCE[workload.runtime.precision], least):
                raise RuntimeError(
                    f"{name} has loss {stage} {value.item():.6f}, we {ours[stage]:.6f}: no figures"
                )
    return plains


def constant_contender(workload: Workload, engine: Engine) -> Contender:
    """Return our step on constant batches: the ceiling."""
    images = workload.images * workload.settings.accumulate
    row = Row(name="warpseg, constant batch", images=images)
    return Contender(
        row,
        lambda: engine.run_step(workload.micro_batches()),
        lambda: _held(engine, workload.batches),
    )


def loader_contender(
    workload: Workload, engine: Engine, dataset: Dataset, split: str | None
) -> Contender:
    """Return our step, fed by the recipe's own loader."""
    settings = workload.settings
    streams = open_streams(workload.method.streams, dataset, split, settings, workload.runtime)
    row = Row(name="warpseg, loader", images=workload.images * settings.accumulate)

    def take(count: int) -> list[Batches]:
        return [next_batches(streams) for _ in range(count)]

    return Contender(
        row,
        lambda: engine.run_step(take(settings.accumulate)),
        lambda: _held(engine, {}),
        lambda: take(settings.loader.prefetch + 1),
    )


def plain_contenders(
    name: str,
    plain: PlainSupervised,
    batches: Batches,
    workload: Workload,
    dataset: Dataset | None,
    split: str | None,
) -> list[Contender]:
    """Return a plain step on constant batches and, with a data set, fed by DataLoader."""
    row = Row(name=f"{name}, constant batch", images=workload.images)

    def held(batches: Batches) -> list[Tensor]:
        return held_between_steps(plain.networks(), plain.optimizers(), batches)

    found = [Contender(row, lambda: plain.run(batches), lambda: held(batches))]
    if dataset is not None:
        loader = PlainLoader(
            workload.method.streams, dataset, split, workload.settings, workload.runtime.device
        )
        row = Row(name=f"{name}, DataLoader", images=workload.images)
        found.append(
            Contender(
                row, lambda: plain.run(next(loader)), lambda: held({}), loader.drain, loader.pids
            )
        )
    return found


def _held(engine: Engine, batches: Batches) -> list[Tensor]:
    return held_between_steps(engine.method.networks, engine.optimizers.values(), batches)
