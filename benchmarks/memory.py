"""Memory of a training step: what is allocated after each of its phases, and at most.

    warpseg bench memory RECIPE ... [--model] [--plain] [--device cuda] [--out FILE.json]
                         [--any.setting value ...]

The one-way consistency paper's Figure 4 for any recipe, beside supervised training of the same
network and crop. On a GPU the CUDA allocator is read, on a CPU the profiler's record of its
allocator. `--model` computes nothing: it follows the tensors of a step on the meta device, with the
fused kernels' outputs, and so answers for sizes that do not fit here:

    warpseg bench memory consistency-cityscapes-swiftnet18 --model --plain
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from ..kernels.dispatch import kernels
from ..trainers.consistency import ConsistencySettings
from ..trainers.gta import GtaSettings
from ..trainers.runtime import open_runtime
from ..trainers.settings import RunSettings, to_plain
from .allocations import Phase, PhaseMemory, Step, on_cuda, profiled
from .memory_model import Precision, modeled_plain, modeled_step
from .plain import has_plain, plain_step
from .tables import MiB, Result, Table, result_of, setup_of, write
from .workload import bench_settings, open_workload, supervised_part, tensors_of


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """What `warpseg bench memory` is told."""

    model: bool = False
    """compute nothing: follow the step's tensors on the meta device, as on a GPU"""
    plain: bool = False
    """also the plain PyTorch implementation, in the paper's order and with one backward pass"""
    precision: Precision = "fp32"
    """of the model: fp32 (the paper's), or bf16 activations"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to measure; auto takes the GPU if there is one"""
    classes: int = 19
    """number of classes"""
    out: Path | None = None
    """write the results to this file as well (JSON)"""


@dataclass(kw_only=True)
class Subject:
    """A step and its phases; bytes."""

    name: str
    instrument: str
    phases: list[PhaseMemory]
    settings: dict[str, Any] = field(repr=False)
    ratio: float = 1.0
    """Peak over that of supervised training."""

    @property
    def peak(self) -> int:
        """Most bytes held at once."""
        return max(phase.peak for phase in self.phases)


def memory(arguments: list[str]) -> int:
    """Run `warpseg bench memory`."""
    count = next((n for n, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    recipes, rest = arguments[:count], arguments[count:]
    settings, words = tyro.cli(
        MemorySettings,
        args=rest,
        prog="warpseg bench memory RECIPE ... [--any.setting value ...]",
        return_unknown_args=True,
    )
    if not recipes:
        raise ValueError("bench memory takes one RECIPE or more first; see warpseg train --help")
    subjects = measure({name: bench_settings(name, words) for name in recipes}, settings)
    on_gpu = subjects[0].instrument == "CUDA allocator"
    steps = [{**asdict(subject), "peak": subject.peak} for subject in subjects]
    device = torch.device("cuda" if on_gpu else "cpu")
    result = result_of("memory", arguments, device, {"steps": steps})
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
    words = f"model, {settings.precision}"
    with kernels("triton"):
        phases = modeled_step(name, run, settings.classes, settings.precision)
    found = [Subject(name=name, instrument=words, phases=phases, settings=to_plain(run))]
    for label, staged in _plain_forms(run, settings):
        phases = modeled_plain(name, run, settings.classes, settings.precision, staged)
        label = f"{name}, {label}"
        found.append(Subject(name=label, instrument=words, phases=phases, settings=to_plain(run)))
    return found


def _measured(name: str, run: RunSettings, settings: MemorySettings) -> list[Subject]:
    found = [_measure_ours(name, run, settings)]
    for label, staged in _plain_forms(run, settings):
        found.append(_measure_plain(f"{name}, {label}", run, settings, staged))
    return found


def _measure_ours(name: str, run: RunSettings, settings: MemorySettings) -> Subject:
    runtime = open_runtime(settings.device, run.precision, run.speed)
    workload = open_workload(name, run, runtime, settings.classes)
    engine = workload.engine()
    engine.run_step(workload.micro_batches())  # makes the optimizer's state

    def step(phase: Phase) -> None:
        engine.phase = phase
        engine.run_step(workload.micro_batches())

    held = [*tensors_of(dict(engine.method.networks)), *tensors_of(workload.batches)]
    held += [t for o in engine.optimizers.values() for t in tensors_of(dict(o.state))]
    return _subject(name, run, step, held, runtime.device)


def _measure_plain(name: str, run: RunSettings, settings: MemorySettings, staged: bool) -> Subject:
    runtime = open_runtime(settings.device, "fp32")
    plain = plain_step(run, settings.classes, runtime.device, staged=staged)
    assert plain is not None
    batches = open_workload(name, run, runtime, settings.classes).batches
    plain.run(batches)  # makes the optimizer's state
    held = [t for module in plain.networks().values() for t in tensors_of(module)]
    states = [dict(optimizer.state) for optimizer in plain.optimizers() if optimizer is not None]
    held += [*tensors_of(batches), *(tensor for state in states for tensor in tensors_of(state))]

    def step(phase: Phase) -> None:
        plain.run(batches, phase)

    return _subject(name, run, step, held, runtime.device)


def _subject(
    name: str, run: RunSettings, step: Step, held: list[Tensor], device: torch.device
) -> Subject:
    if device.type == "cuda":
        phases, word = on_cuda(step, device), "CUDA allocator"
    else:
        phases, word = profiled(step, held), "CPU profiler"
    return Subject(name=name, instrument=word, phases=phases, settings=to_plain(run))


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
