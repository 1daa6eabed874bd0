"""Fused operations against their plain PyTorch references, eager and under torch.compile.

    warpseg bench kernels [--op NAME] [--device cuda] [--size N H W] [--out FOLDER]
    warpseg bench kernels --compile

Gate first: each operation's outputs and gradient must equal the reference in float64, or it gets no
number. Then the time (20th, 50th and 80th percentile), the peak memory, and the least bytes that
the operation can move over its time, as a share of what the device copies per second. FOLDER
receives kernels.json and kernels.md, anew after each operation, so that what was measured stays
when the rest is not, and at last kernels.png. A contender that fails is told as such, and the
others go on. On a CPU only the references run.

`--compile` needs no GPU: it compiles every kernel for sm_80, sm_90 and sm_100 and writes the report
of registers, shared memory and spills (see compiled.py).
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ....kernels.dispatch import kernels as forced
from ....shards.archive import write_text
from ...bars import draw_bars
from ...tables import MiB
from ...timing import (
    Times,
    bandwidth,
    choose_device,
    circumstances,
    fault_of,
    peak_memory,
    time_of,
    waits_for_the_device,
)
from ...words.given import Given
from ...words.kernels import KernelsSettings
from . import compiled
from .case import Case, Outputs, Target
from .cases import cases
from .gate import gate

CONTENDERS = ("eager", "compiled", "op")


@dataclass(kw_only=True)
class Row:
    """One case's measurements; what was not measured is None."""

    op: str
    size: str
    floor_bytes: float
    gate: str = ""
    """Empty where the outputs are right, else what is wrong."""
    times: dict[str, Times] = field(default_factory=dict)
    """Milliseconds of eager, compiled, op."""
    memory: dict[str, int | None] = field(default_factory=dict)
    """Peak bytes of the same."""
    waits: bool | None = None
    """Whether the operation makes the host wait for the device."""
    bandwidth_share: float | None = None
    """Floor bytes over the operation's time, as a share of the device's copy bandwidth."""
    faults: dict[str, str] = field(default_factory=dict)
    """What went wrong with a contender that has no time."""
    verdicts: dict[str, str] = field(default_factory=dict)
    """Target -> pass, miss or not measured, with the number."""


def kernels(given: Given) -> int:
    """Run `warpseg bench kernels`; 1 where an operation is wrong or a kernel spills."""
    return measure(given.settings)


def measure(settings: KernelsSettings) -> int:
    """Measure operations against their references, or compile the kernels without a GPU."""
    op, size, out = settings.op, settings.size, settings.out
    if settings.compile:
        return _compile(settings.jobs, out)
    chosen = choose_device(settings.device)
    facts = circumstances(chosen)
    speed = bandwidth(chosen)
    facts["copy_gb_per_s"] = None if speed is None else round(speed / 1e9, 1)
    if chosen.type == "cpu":
        print("No GPU is used: these are the plain PyTorch references on a CPU, not the kernels.")
    rows: list[Row] = []
    for case in cases(chosen, size, op):
        rows.append(_measure_case(case, chosen, settings.mode, speed, own_size=size is None))
        print(f"{rows[-1].op}: {rows[-1].gate or 'right'}", file=sys.stderr)
        for name, fault in rows[-1].faults.items():
            print(f"{rows[-1].op}: {name} failed: {fault}", file=sys.stderr)
        if out is not None:
            _write(out, rows, facts)
    if not rows:
        raise ValueError(f"no operation {op!r} to measure; see --help")
    print(table(rows, facts))
    if out is not None:
        _draw(out, rows, facts)
    return 1 if any(row.gate for row in rows) else 0


def _compile(jobs: int | None, out: Path | None) -> int:
    report = compiled.measure(jobs)
    compiled.write(report, compiled.REPORT if out is None else out / compiled.REPORT.name)
    print(compiled.table(report))
    wrong = compiled.failures(report)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def _measure_case(
    case: Case, device: torch.device, mode: str, speed: float | None, own_size: bool
) -> Row:
    row = Row(op=case.op, size=case.size, floor_bytes=case.floor_bytes)
    try:
        row.gate = gate(case)
    except Exception as error:  # what fails here is a row, too
        row.gate = fault_of(error)
    if row.gate:
        return row
    for name, run in _contenders(case, device, mode):
        try:
            row.times[name] = time_of(run, device)
            row.memory[name] = peak_memory(run, device)
        except torch.cuda.OutOfMemoryError:
            row.memory[name] = None
        except Exception as error:
            row.faults[name] = fault_of(error)
        torch.compiler.reset()
    if "op" in row.times:
        row.waits = waits_for_the_device(lambda: case.run(case.function), device)
        if speed is not None:
            share = case.floor_bytes / (1e-3 * row.times["op"].median) / speed
            row.bandwidth_share = round(share, 3)
    row.verdicts = verdicts(case.target, row, own_size)
    return row


def _contenders(
    case: Case, device: torch.device, mode: str
) -> Iterator[tuple[str, Callable[[], Outputs]]]:
    """Yield what is timed; a CPU has no kernels, and compiling for it would prove nothing."""
    baseline = case.baseline or case.function

    def reference(function: Callable[..., Any]) -> Callable[[], Outputs]:
        def run() -> Outputs:
            with forced("reference"):
                return case.run(function)

        return run

    yield "eager", reference(baseline)
    if device.type == "cuda":
        yield "compiled", reference(torch.compile(baseline, mode=mode))
        yield "op", lambda: case.run(case.function)


def verdicts(target: Target, row: Row, own_size: bool) -> dict[str, str]:
    """Hold the measurements against the target; at another size or on a CPU nothing is judged."""
    op, other = row.times.get("op"), row.times.get("compiled")
    memory, most = row.memory.get("op"), row.memory.get("compiled")
    checks: list[tuple[str, float | None, bool]] = []
    if target.speedup is not None:
        gain = None if op is None or other is None else other.median / op.median
        checks.append((f">= {target.speedup:g}x compiled", gain, (gain or 0) >= target.speedup))
    if target.memory is not None:
        share = None if memory is None or most is None else memory / max(most, 1)
        checks.append((f"<= 1/{1 / target.memory:g} memory", share, (share or 0) <= target.memory))
    if target.milliseconds is not None:
        time = None if op is None else op.median
        checks.append((f"<= {target.milliseconds:g} ms", time, (time or 0) <= target.milliseconds))
    if target.asynchronous:
        waits = None if row.waits is None else float(row.waits)
        checks.append(("no host sync", waits, waits == 0.0))
    return {
        name: "not measured"
        if value is None or not own_size
        else f"{'pass' if holds else 'MISS'} ({value:.3g})"
        for name, value, holds in checks
    }


def table(rows: list[Row], facts: dict[str, Any]) -> str:
    """Return the rows as a Markdown page."""
    words = (facts["name"], f"torch {facts['torch']}", f"triton {facts['triton']}")
    place = ", ".join([*words, f"commit {facts['commit']}", facts["date"]])
    copies = facts["copy_gb_per_s"]
    lines = [
        "# Operations against their references",
        "",
        place + (f"; copies {copies} GB/s" if copies else "; references only, no GPU"),
        "Milliseconds, median (20th to 80th percentile). Peak MiB. GB/s: the least bytes that the "
        "operation can move over its time.",
        "",
        "| operation | size | eager | torch.compile | ours | gain | MiB compile / ours "
        "| GB/s (share) | targets |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.gate:
            lines.append(f"| {row.op} | {row.size} | WRONG: {row.gate} |" + " |" * 6)
            continue
        eager, other, op = (
            "failed" if name in row.faults else _time(row.times.get(name)) for name in CONTENDERS
        )
        memory = " / ".join(_mebibytes(row.memory.get(name)) for name in ("compiled", "op"))
        verdict = "; ".join(f"{name}: {word}" for name, word in row.verdicts.items()) or "none"
        cells = [row.op, row.size, eager, other, op, _gain(row), memory, _rate(row), verdict]
        lines.append(f"| {' | '.join(cells)} |")
    faults = [(row.op, name, fault) for row in rows for name, fault in row.faults.items()]
    if faults:
        lines += ["", *(f"{op}: {name} failed: {fault}" for op, name, fault in faults)]
    return "\n".join(lines) + "\n"


def _time(times: Times | None) -> str:
    if times is None:
        return "-"
    return f"{times.median:.3g} ({times.low:.3g} to {times.high:.3g})"


def _mebibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / MiB:.1f}"


def _gain(row: Row) -> str:
    if "op" not in row.times or "compiled" not in row.times:
        return "-"
    return f"{row.times['compiled'].median / row.times['op'].median:.1f}x"


def _rate(row: Row) -> str:
    if row.bandwidth_share is None:
        return "-"
    speed = row.floor_bytes / (1e-3 * row.times["op"].median) / 1e9
    return f"{speed:.0f} ({100 * row.bandwidth_share:.0f} %)"


def _write(out: Path, rows: list[Row], facts: dict[str, Any]) -> None:
    """Write what is known so far; a stop leaves the files of before or these, whole."""
    out.mkdir(parents=True, exist_ok=True)
    content = {**facts, "rows": [asdict(row) for row in rows]}
    write_text(out / "kernels.json", json.dumps(content, indent=1) + "\n")
    write_text(out / "kernels.md", table(rows, facts))


def _draw(out: Path, rows: list[Row], facts: dict[str, Any]) -> None:
    groups = {
        f"{row.op}  {row.size}": {
            name: row.times[name].median for name in CONTENDERS if name in row.times
        }
        for row in rows
        if row.times
    }
    draw_bars(out / "kernels.png", f"{facts['name']}, milliseconds (logarithmic)", groups)
