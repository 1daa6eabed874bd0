"""Memory of a training step: what is allocated after each of its phases, and at most.

    warpseg bench memory RECIPE ... [--model] [--plain] [--device cuda] [--out FILE.json]
                         [--any.setting value ...]

The one-way consistency paper's Figure 4 for any recipe, beside supervised training of the same
network and crop, all in one precision. On a GPU the CUDA allocator is read, less what was allocated
before a step's networks were built; on a CPU the profiler's record of its allocator. `--model`
computes nothing: it follows the tensors of a step on the meta device, with the fused kernels'
outputs, and so answers for sizes that do not fit here:

    warpseg bench memory consistency-cityscapes-swiftnet18 --model --plain
"""

import gc
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...kernels.dispatch import kernels
from ...trainers.engine.runtime import Runtime, open_runtime
from ...trainers.engine.settings import RunSettings, to_plain
from ...trainers.methods.settings.consistency import ConsistencySettings
from ...trainers.methods.settings.gta import GtaSettings
from ...trainers.runs.measuring.allocations import (
    Phase,
    PhaseMemory,
    Step,
    clean_level,
    on_cuda,
    profiled,
)
from ...trainers.runs.measuring.memory_model import Precision, modeled_step
from ...trainers.runs.measuring.workload import (
    bench_settings,
    held_between_steps,
    open_workload,
    supervised_part,
)
from ..contenders.plain import has_plain, plain_step
from ..contenders.plain_step import plain_batches
from ..tables import MiB, Result, Table, result_of, setup_of, write
from ..words.given import Arithmetic, Given
from ..words.steps import MemorySettings
from .plain_memory import modeled_plain

ARITHMETIC: dict[str, Arithmetic] = {"fp32": "fp32", "bf16": "bf16", "fp16": "amp"}
"""Our precision -> the plain implementation's."""


@dataclass(kw_only=True)
class Subject:
    """A step and its phases; bytes."""

    name: str
    instrument: str
    precision: str
    phases: list[PhaseMemory]
    settings: dict[str, Any] = field(repr=False)
    ratio: float = 1.0
    """Peak over that of supervised training."""

    @property
    def peak(self) -> int:
        """Most bytes held at once."""
        return max(phase.peak for phase in self.phases)


def memory(given: Given) -> int:
    """Run `warpseg bench memory`."""
    settings: MemorySettings = given.settings
    subjects = measure(
        {name: bench_settings(name, given.changes) for name in given.recipes}, settings
    )
    on_gpu = subjects[0].instrument.startswith("CUDA allocator")
    steps = [{**asdict(subject), "peak": subject.peak} for subject in subjects]
    device = torch.device("cuda" if on_gpu else "cpu")
    result = result_of("memory", given.arguments, device, {"steps": steps})
    print("\n\n".join(table.text() for table in tables(result)))
    write(result, settings.out)
    return 0


def measure(recipes: dict[str, RunSettings], settings: MemorySettings) -> list[Subject]:
    """Measure recipes, and before them supervised training with what the first one shares."""
    first = next(iter(recipes.values()))
    entries: dict[str, RunSettings] = {"supervised": supervised_part(first)}
    entries |= {name: run for name, run in recipes.items() if run != entries["supervised"]}
    look = _modeled if settings.model else _measured
    subjects: list[Subject] = []
    for name, run in entries.items():
        subjects += look(name, run, settings)
    for subject in subjects:
        subject.ratio = subject.peak / subjects[0].peak
    return subjects


def _modeled(name: str, run: RunSettings, settings: MemorySettings) -> list[Subject]:
    precision: Precision = "fp32" if settings.precision == "auto" else settings.precision
    with kernels("triton"):
        phases = modeled_step(name, run, settings.classes, precision)
    found = [_subject(name, run, phases, "model", precision)]
    for label, staged in _plain_forms(run, settings):
        phases = modeled_plain(name, run, settings.classes, precision, staged)
        found.append(_subject(f"{name}, {label}", run, phases, "model", precision))
    return found


def _measured(name: str, run: RunSettings, settings: MemorySettings) -> list[Subject]:
    found = [_measure_ours(name, run, settings)]
    for label, staged in _plain_forms(run, settings):
        found.append(_measure_plain(f"{name}, {label}", run, settings, staged))
    return found


def _measure_ours(name: str, run: RunSettings, settings: MemorySettings) -> Subject:
    runtime = _open_runtime(run, settings)
    level = clean_level(runtime.device)
    workload = open_workload(name, run, runtime, settings.classes)
    engine = workload.engine()
    engine.run_step(workload.micro_batches())  # makes the optimizer's state

    def step(phase: Phase) -> None:
        engine.phase = phase
        engine.run_step(workload.micro_batches())

    held = held_between_steps(engine.method.networks, engine.optimizers.values(), workload.batches)
    return _look(name, run, step, held, level, runtime)


def _measure_plain(name: str, run: RunSettings, settings: MemorySettings, staged: bool) -> Subject:
    runtime = _open_runtime(run, settings)
    level = clean_level(runtime.device)
    batches = plain_batches(open_workload(name, run, runtime, settings.classes).batches)
    # Our networks: a method and its stages refer to each other.
    gc.collect()
    arithmetic = ARITHMETIC[runtime.precision]
    plain = plain_step(run, settings.classes, runtime.device, arithmetic, staged=staged)
    assert plain is not None
    plain.run(batches)  # makes the optimizer's state
    held = held_between_steps(plain.networks(), plain.optimizers(), batches)

    def step(phase: Phase) -> None:
        plain.run(batches, phase)

    return _look(name, run, step, held, level, runtime)


def _open_runtime(run: RunSettings, settings: MemorySettings) -> Runtime:
    precision = run.precision if settings.precision == "auto" else settings.precision
    return open_runtime(settings.device, precision, run.speed)


def _look(
    name: str, run: RunSettings, step: Step, held: list[Tensor], level: int, runtime: Runtime
) -> Subject:
    if runtime.device.type == "cuda":
        phases, word = on_cuda(step, runtime.device, level), "CUDA allocator"
    else:
        phases, word = profiled(step, held), "CPU profiler"
    return _subject(name, run, phases, word, runtime.precision)


def _subject(
    name: str, run: RunSettings, phases: list[PhaseMemory], word: str, precision: str
) -> Subject:
    return Subject(
        name=name,
        instrument=f"{word}, {precision}",
        precision=precision,
        phases=phases,
        settings=to_plain(run),
    )


def _plain_forms(run: RunSettings, settings: MemorySettings) -> list[tuple[str, bool]]:
    """Return name and order of the plain implementations to compare with."""
    # GTA-Seg's percentile on the host needs numbers.
    without_numbers = settings.model and isinstance(run, GtaSettings)
    if not settings.plain or not has_plain(run) or without_numbers:
        return []
    forms = [("plain", True)]
    staged = isinstance(run, ConsistencySettings)
    return [*forms, ("plain, one backward", False)] if staged else forms


def tables(result: Result) -> list[Table]:
    """Return the peaks, then the phases of each step."""
    peaks = [
        (step["name"], step["instrument"], f"{step['peak'] / MiB:.1f}", f"{step['ratio']:.3f}")
        for step in result["steps"]
    ]
    setup = setup_of(result["steps"][-1]["settings"])
    found = [Table(("step", "by", "peak MiB", "x supervised"), peaks, setup)]
    for step in result["steps"]:
        phases = [
            (phase["name"], f"{phase['after'] / MiB:.1f}", f"{phase['peak'] / MiB:.1f}")
            for phase in step["phases"]
        ]
        found.append(Table((step["name"], "after, MiB", "peak, MiB"), phases))
    return found
