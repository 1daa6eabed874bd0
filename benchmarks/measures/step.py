"""A training step: how fast, where its time goes, and against plain PyTorch.

    warpseg bench step RECIPE [--data DATA [--split SPLIT]] [--plain fp32 amp] [--out FILE.json]
                       [--any.setting value ...]

A constant batch is the ceiling: the step without a loader. With DATA, the recipe's own loader feeds
it, and DataLoader and Pillow feed the plain implementation (plain_step.py). All take turns in
windows of some steps; medians over the rounds count. Before anything is timed, the plain step must
give the same losses. FILE is written anew after each window, and what fails is a row that says so.
All lie on the device together, so a contender's memory is what a step adds to what is allocated,
and its own networks, optimizer state and constant batches. On a CPU memory and launches are counted
in two steps of their own, which are not timed.

    nsys profile warpseg bench step RECIPE --nvtx       # the same phases as NVTX ranges
"""

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ...shards import Dataset
from ...trainers.engine.runtime import Runtime, open_runtime
from ...trainers.engine.settings import RunSettings, to_plain
from ...trainers.engine.speed import manual_garbage_collection
from ...trainers.engine.steps.engine import Engine
from ...trainers.runs.measuring.allocations import Phase, bytes_of, profiled
from ...trainers.runs.measuring.launches import count_launches
from ...trainers.runs.measuring.workload import Workload, bench_settings, open_workload
from ...trainers.tables import decimal
from ..contenders.plain_step import plain_batches
from ..contenders.steps import (
    Contender,
    Row,
    check_plain,
    constant_contender,
    loader_contender,
    plain_contenders,
)
from ..tables import MiB, Result, Table, by_kind, result_of, setup_of, write
from ..timing import cpu_seconds, fault_of
from ..trace import Trace, trace_steps
from ..words.given import Arithmetic, Given
from ..words.steps import StepSettings
from .phases import PhaseTime, measure_phases

WARM_UP = 3
"""Steps before the first window, in which memory grows and algorithms are chosen."""


def step(given: Given) -> int:
    """Run `warpseg bench step`; 1 where a contender failed."""
    (recipe,), settings = given.recipes, given.settings
    result: Result = {}

    def save(measured: "Measured") -> None:
        device = measured.runtime.device
        result.update(result_of("step", given.arguments, device, measured.to_json()))
        write(result, settings.out)

    measured = measure(recipe, bench_settings(recipe, given.changes), settings, save)
    print("\n\n".join(table.text() for table in tables(result)))
    return 1 if measured.faults() else 0


@dataclass(kw_only=True)
class Measured:
    """All that was measured of a recipe's step, so far."""

    recipe: str
    settings: RunSettings
    runtime: Runtime
    rows: list[Row]
    phases: list[PhaseTime] = field(default_factory=list)
    flops: int = 0
    """Floating-point operations of the networks in a step, a multiply-add counted as two."""
    trace: Trace | None = None
    """What the GPU did in a step of constant batches, as it is run."""
    unmeasured: dict[str, str] = field(default_factory=dict)
    """What went wrong where phases or operations could not be counted."""

    def faults(self) -> dict[str, str]:
        """Return what went wrong, by the name of a row or of what was not measured."""
        return {row.name: row.fault for row in self.rows if row.fault} | self.unmeasured

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "recipe": self.recipe,
            "precision": self.runtime.precision,
            "flops": self.flops,
            "rows": [{**asdict(row), "rate": row.rate} for row in self.rows],
            "phases": [asdict(phase) for phase in self.phases],
            "trace": None if self.trace is None else asdict(self.trace),
            "unmeasured": self.unmeasured,
            "settings": to_plain(self.settings),
        }


def measure(
    recipe: str,
    run: RunSettings,
    settings: StepSettings,
    save: Callable[[Measured], object] = lambda _: None,
) -> Measured:
    """Check the plain steps against ours, then time all in turns.

    save: takes what is known after each window. A contender that fails, or a plain step whose
    losses are not ours, keeps the sentence that says so as its row.
    """
    runtime = open_runtime(settings.device, run.precision, run.speed)
    dataset = None if settings.data is None else Dataset.open(settings.data)
    classes = settings.classes if dataset is None else dataset.num_classes
    workload = open_workload(recipe, run, runtime, classes)
    engine = workload.engine()
    contenders = _contenders(workload, engine, dataset, settings, classes)
    measured = Measured(
        recipe=recipe, settings=run, runtime=runtime, rows=[c.row for c in contenders]
    )
    ranges = torch.autograd.profiler.emit_nvtx() if settings.nvtx else nullcontext()
    with ranges:
        for contender in contenders:
            contender.row.attempt(partial(_warm_up, contender))
            if runtime.device.type == "cpu":
                with run.speed.eagerly():
                    contender.row.attempt(partial(_count_one, contender))
        for _ in range(settings.rounds):
            for contender in contenders:
                with manual_garbage_collection():
                    window = partial(_window, contender, settings.steps, runtime.device)
                    contender.row.attempt(window)
                save(measured)
        _count(measured, workload, engine, settings.rounds)
    save(measured)
    return measured


def _contenders(
    workload: Workload,
    engine: Engine,
    dataset: Dataset | None,
    settings: StepSettings,
    classes: int,
) -> list[Contender]:
    """Return what takes turns; what cannot even be made is a contender that failed."""
    ours = constant_contender(workload, engine)
    contenders = [ours]
    if dataset is not None:
        contenders.append(loader_contender(workload, engine, dataset, settings.split))
    for arithmetic in settings.plain:
        row = Row(name=f"plain PyTorch, {arithmetic}", images=workload.images)
        failed = Contender(row, list, list)

        def make(arithmetic: Arithmetic = arithmetic) -> None:
            batches = plain_batches(workload.batches)
            made = check_plain(workload, engine, (arithmetic,), classes)
            for name, plain in made.items():
                contenders.extend(
                    plain_contenders(name, plain, batches, workload, dataset, settings.split)
                )

        row.attempt(make)
        if row.fault:
            contenders.append(failed)
    return contenders


def _count(measured: Measured, workload: Workload, engine: Engine, rounds: int) -> None:
    """Measure the phases of our step, and count its operations."""
    if measured.rows[0].fault:
        return
    try:
        step = partial(_constant_step, workload, engine)
        measured.trace = trace_steps(step, rounds, measured.runtime.device)
        measured.phases = measure_phases(workload, engine, rounds)
        counter = FlopCounterMode(display=False)
        with counter, engine.eagerly(), measured.settings.speed.eagerly():
            engine.run_step(workload.micro_batches())
        measured.flops = counter.get_total_flops()
    except Exception as error:
        measured.unmeasured["phases"] = fault_of(error)


def _constant_step(workload: Workload, engine: Engine) -> None:
    engine.run_step(workload.micro_batches())


def _warm_up(contender: Contender) -> None:
    for _ in range(WARM_UP):
        contender.step()


def _count_one(contender: Contender) -> None:
    """Count what a step launches on a CPU, and in another one what it holds."""
    row = contender.row
    contender.drain()
    row.launches = count_launches(contender.step)

    def step(phase: Phase) -> None:
        with phase("step"):
            contender.step()

    (held,) = profiled(step, contender.held())
    row.peak_memory = held.peak


def _window(contender: Contender, steps: int, device: torch.device) -> None:
    """Time some steps, after one that is not counted."""
    row, others = contender.row, 0
    # Else a loader is timed that worked while others had their turn.
    contender.drain()
    contender.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        others = torch.cuda.memory_allocated(device) - bytes_of(contender.held())
    pids = contender.pids()
    used, start = cpu_seconds(pids), time.perf_counter()
    for _ in range(steps):
        contender.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elapsed, used = time.perf_counter() - start, cpu_seconds(pids) - used
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) - others
        row.peak_memory = max(row.peak_memory or 0, peak)
    row.images_per_second.append(steps * row.images / elapsed)
    row.cpu_ms_per_image.append(1e3 * used / (steps * row.images))


def tables(result: Result) -> list[Table]:
    """Return the contenders, then the phases."""
    first, flops = result["rows"][0], result["flops"]
    on_cpu = result["machine"]["device"] == "cpu"
    rows = []
    for row in result["rows"]:
        if not row["images_per_second"]:
            rows.append((row["name"], "failed" if row.get("fault") else "-", *["-"] * 5))
            continue
        ratios = _ratios(row, first, on_cpu)
        memory = None if row["peak_memory"] is None else row["peak_memory"] / MiB
        rows.append(
            (
                row["name"],
                f"{row['rate']:.2f}",
                f"{statistics.median(ratios):.2f}" if ratios else "-",
                f"{statistics.median(row['cpu_ms_per_image']):.1f}",
                # Counted of our step, which may have more images than the plain one.
                f"{flops / first['images'] * row['rate'] / 1e12:.3f}" if flops else "-",
                str(row.get("launches") or "-"),
                decimal(memory),
            )
        )
    head = ("step", "images/s", "x constant batch", "CPU ms/image", "TFLOP/s", "launches")
    head = (*head, "peak memory, MiB")
    what = f"{result['recipe']}, {result['precision']}: {setup_of(result['settings'])}"
    if on_cpu:
        what += "; x constant batch: by processor time"
    if first.get("launches"):
        what += "; launches: operations dispatched in a step, without views and allocations"
    if first["peak_memory"] is not None:
        what += "; peak memory: networks, optimizer state, batches, and what a step allocates"
    faults = {row["name"]: row["fault"] for row in result["rows"] if row.get("fault")}
    for name, fault in {**faults, **result.get("unmeasured", {})}.items():
        what += f"\n{name} failed: {fault}"
    if result.get("trace"):
        trace = result["trace"]
        what += (
            f"\na step of ours: {trace['launches']:.0f} launches of the host, "
            f"{trace['kernels']:.0f} kernels and copies, GPU idle {trace['idle_share']:.1%}"
        )
    found = [Table(head, rows, what)]
    if result["phases"]:
        total = sum(phase["milliseconds"] for phase in result["phases"])
        phases = [
            (p["stage"], p["kind"], f"{p['milliseconds']:.2f}", f"{p['milliseconds'] / total:.1%}")
            for p in result["phases"]
        ]
        remark = by_kind(result["phases"])
        found.append(Table(("stage", "phase", "ms", "share"), phases, remark))
    return found


def _ratios(row: Result, first: Result, on_cpu: bool) -> list[float]:
    """Return by round how many times as fast as the first a contender is: on a CPU by processor
    time, which other work on the machine does not change."""
    name = "cpu_ms_per_image" if on_cpu else "images_per_second"
    pairs = zip(row[name], first[name], strict=False)
    return [other / own if on_cpu else own / other for own, other in pairs]


def bars(result: Result) -> dict[str, dict[str, float]]:
    """Return a bar for each contender, for a plot; on a CPU of processor time, which other work on
    the machine does not change."""
    rows = [row for row in result["rows"] if row["images_per_second"]]
    if result["machine"]["device"] != "cpu":
        return {row["name"]: {"images/s": row["rate"]} for row in rows}
    spent = {row["name"]: statistics.median(row["cpu_ms_per_image"]) for row in rows}
    return {name: {"images per CPU second": 1e3 / cpu} for name, cpu in spent.items()}
