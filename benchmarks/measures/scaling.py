"""A training step on 1 to N ranks: images/s of constant batches, gradients exchanged.

    warpseg bench scaling RECIPE [--ranks 1 2 4 8] [--steps 10] [--out FILE.json]
                          [--any.setting value ...]

Each number of ranks is a torchrun of its own: one GPU a rank, or gloo on a CPU, where every rank
has as many threads as with the most ranks. Batch sizes are per rank (weak scaling); efficiency is
images/s of a rank as a share of what one rank alone makes.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...trainers.engine.runtime import close_runtime, open_runtime
from ...trainers.engine.settings import RunSettings, to_plain
from ...trainers.runs.measuring.workload import bench_settings, open_workload
from ..tables import Result, Table, result_of, setup_of, write
from ..words.given import Given
from ..words.steps import ScalingSettings

WARM = 2


def scaling(given: Given) -> int:
    """Run `warpseg bench scaling`."""
    (recipe,), settings, arguments = given.recipes, given.settings, given.arguments
    worker = os.environ.get(_RESULT)
    run = bench_settings(recipe, given.changes)
    if worker:
        _work(recipe, run, settings, Path(worker))
        return 0
    rows = [_launch(count, arguments, settings) for count in settings.ranks]
    for row in rows:
        row["efficiency"] = row["images_per_second"] / row["ranks"] / _single(rows)
    on_gpu = settings.device != "cpu" and torch.cuda.is_available()
    content = {"recipe": recipe, "rows": rows, "settings": to_plain(run)}
    device = torch.device("cuda" if on_gpu else "cpu")
    result = result_of("scaling", arguments, device, content)
    print(tables(result)[0].text())
    write(result, settings.out)
    return 0


_RESULT = "WARPSEG_SCALING_RESULT"
"""Environment variable that makes a process a rank: the file for the result."""


def _launch(count: int, arguments: Sequence[str], settings: ScalingSettings) -> dict[str, Any]:
    """Run the ranks and return what the first one measured.

    Raises RuntimeError with the last line of what a failed launch said.
    """
    threads = max(1, (os.cpu_count() or 1) // max(settings.ranks))
    with tempfile.TemporaryDirectory(prefix="warpseg-scaling-") as folder:
        result = Path(folder) / "result.json"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *("--nproc-per-node", str(count), "-m", "warpseg", "bench", "scaling"),
                *arguments,
            ],
            env={"OMP_NUM_THREADS": str(threads), **os.environ, _RESULT: str(result)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not result.is_file():
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            raise RuntimeError(f"{count} ranks failed: {said[-1]}")
        return json.loads(result.read_text())


def _work(recipe: str, run: RunSettings, settings: ScalingSettings, result: Path) -> None:
    """Be one rank: make steps, and as the first rank write how long they took."""
    runtime = open_runtime(settings.device, run.precision, run.speed)
    workload = open_workload(recipe, run, runtime, settings.classes)
    engine = workload.engine()
    seconds = []
    for _ in range(WARM + settings.steps):
        runtime.barrier()
        start = time.perf_counter()
        engine.run_step(workload.micro_batches())
        if runtime.device.type == "cuda":
            torch.cuda.synchronize(runtime.device)
        runtime.barrier()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[WARM:])
    images = workload.images * run.accumulate * runtime.world_size
    if runtime.rank == 0:
        row = {"ranks": runtime.world_size, "images": images, "step_ms": 1e3 * median}
        result.write_text(json.dumps({**row, "images_per_second": images / median}))
    runtime.barrier()
    close_runtime()


def _single(rows: Sequence[dict[str, Any]]) -> float:
    """Return images/s of a rank in the row of fewest ranks."""
    fewest = min(rows, key=lambda row: row["ranks"])
    return fewest["images_per_second"] / fewest["ranks"]


def tables(result: Result) -> list[Table]:
    """Return the rows."""
    cells = [
        (
            str(row["ranks"]),
            str(row["images"]),
            f"{row['step_ms']:.1f}",
            f"{row['images_per_second']:.2f}",
            f"{row['efficiency']:.1%}",
        )
        for row in result["rows"]
    ]
    head = ("ranks", "images a step", "step ms", "images/s", "efficiency")
    remark = f"{result['recipe']}, of a rank: {setup_of(result['settings'])}"
    return [Table(head, cells, remark)]
