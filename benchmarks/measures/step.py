"""A training step: how fast, where its time goes, and against plain PyTorch.

    warpseg bench step RECIPE [--data DATA [--split SPLIT]] [--plain fp32 amp] [--out FILE.json]
                       [--any.setting value ...]

A constant batch is the ceiling: the step without a loader. With DATA, the recipe's own loader feeds
it, and DataLoader and Pillow feed the plain implementation (plain_step.py). All take turns in
windows of some steps; medians over the rounds count. Before anything is timed, the plain step must
give the same losses. All lie on the device together, so a contender's memory is what a step adds to
what is allocated, and its own networks, optimizer state and constant batches.

    nsys profile warpseg bench step RECIPE --nvtx       # the same phases as NVTX ranges
"""

import statistics
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ...shards import Dataset
from ...trainers.engine.runtime import Runtime, open_runtime
from ...trainers.engine.settings import RunSettings, to_plain
from ...trainers.engine.speed import manual_garbage_collection
from ...trainers.runs.measuring.allocations import bytes_of
from ...trainers.runs.measuring.workload import bench_settings, open_workload
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
from ..timing import cpu_seconds
from ..words import Given, StepSettings
from .phases import PhaseTime, measure_phases

WARM_UP = 3
"""Steps before the first window, in which memory grows and algorithms are chosen."""


def step(given: Given) -> int:
    """Run `warpseg bench step`."""
    (recipe,), settings = given.recipes, given.settings
    measured = measure(recipe, bench_settings(recipe, given.changes), settings)
    device = measured.runtime.device
    result = result_of("step", given.arguments, device, measured.to_json())
    print("\n\n".join(table.text() for table in tables(result)))
    write(result, settings.out)
    return 0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that was measured of a recipe's step."""

    recipe: str
    settings: RunSettings
    runtime: Runtime
    rows: list[Row]
    phases: list[PhaseTime]
    flops: int
    """Floating-point operations of the networks in a step, a multiply-add counted as two."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "recipe": self.recipe,
            "precision": self.runtime.precision,
            "flops": self.flops,
            "rows": [{**asdict(row), "rate": row.rate} for row in self.rows],
            "phases": [asdict(phase) for phase in self.phases],
            "settings": to_plain(self.settings),
        }


def measure(recipe: str, run: RunSettings, settings: StepSettings) -> Measured:
    """Check the plain step against ours, then time all in turns.

    Raises RuntimeError where the losses differ.
    """
    runtime = open_runtime(settings.device, run.precision, run.speed)
    dataset = None if settings.data is None else Dataset.open(settings.data)
    classes = settings.classes if dataset is None else dataset.num_classes
    workload = open_workload(recipe, run, runtime, classes)
    engine = workload.engine()
    plains = check_plain(workload, engine, settings.plain, classes)
    contenders = [constant_contender(workload, engine)]
    if dataset is not None:
        contenders.append(loader_contender(workload, engine, dataset, settings.split))
    batches = plain_batches(workload.batches)
    for name, plain in plains.items():
        contenders += plain_contenders(name, plain, batches, workload, dataset, settings.split)
    ranges = torch.autograd.profiler.emit_nvtx() if settings.nvtx else nullcontext()
    with ranges:
        for contender in contenders:
            for _ in range(WARM_UP):
                contender.step()
        for _ in range(settings.rounds):
            for contender in contenders:
                with manual_garbage_collection():
                    _window(contender, settings.steps, runtime.device)
        phases = measure_phases(workload, engine, settings.rounds)
    with FlopCounterMode(display=False) as counter, run.speed.eagerly():
        engine.run_step(workload.micro_batches())
    return Measured(
        recipe=recipe,
        settings=run,
        runtime=runtime,
        rows=[contender.row for contender in contenders],
        phases=phases,
        flops=counter.get_total_flops(),
    )


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
    rows = []
    for row in result["rows"]:
        pairs = zip(row["images_per_second"], first["images_per_second"], strict=True)
        memory = None if row["peak_memory"] is None else row["peak_memory"] / MiB
        rows.append(
            (
                row["name"],
                f"{row['rate']:.2f}",
                f"{statistics.median(own / other for own, other in pairs):.2f}",
                f"{statistics.median(row['cpu_ms_per_image']):.1f}",
                # Counted of our step, which may have more images than the plain one.
                f"{flops / first['images'] * row['rate'] / 1e12:.3f}",
                decimal(memory),
            )
        )
    head = ("step", "images/s", "x constant batch", "CPU ms/image", "TFLOP/s", "peak MiB")
    total = sum(phase["milliseconds"] for phase in result["phases"])
    phases = [
        (p["stage"], p["kind"], f"{p['milliseconds']:.2f}", f"{p['milliseconds'] / total:.1%}")
        for p in result["phases"]
    ]
    what = f"{result['recipe']}, {result['precision']}: {setup_of(result['settings'])}"
    if first["peak_memory"] is not None:
        what += "; peak MiB: networks, optimizer state, batches, and what a step allocates"
    return [
        Table(head, rows, what),
        Table(("stage", "phase", "ms", "share"), phases, by_kind(result["phases"])),
    ]


def bars(result: Result) -> dict[str, dict[str, float]]:
    """Return a bar for each contender, for a plot; on a CPU of processor time, which other work on
    the machine does not change."""
    rows = result["rows"]
    if result["machine"]["device"] != "cpu":
        return {row["name"]: {"images/s": row["rate"]} for row in rows}
    spent = {row["name"]: statistics.median(row["cpu_ms_per_image"]) for row in rows}
    return {name: {"images per CPU second": 1e3 / cpu} for name, cpu in spent.items()}
