"""The compile report as a page, with an estimate of each kernel's time on GPUs that are not here.

The estimate is arithmetic, not a measurement: the instructions that a recipe's launch issues, by
the clocks that each unit of an SM needs for one of a warp, the busiest unit alone, at 0.72 of the
peak, which kernels of this kind reach. It knows nothing of latency, of the last wave of programs,
nor of branches that are rarely taken. Beside it stands the least time for the operation's bytes.
"""

from dataclasses import dataclass
from typing import Any

from ..kernels.cells import tile
from ..kernels.compile import ARCHITECTURES
from ..kernels.losses.coarse.plan import COARSE, FEW, in_line, in_strips

EFFICIENCY = 0.72


@dataclass(frozen=True, kw_only=True)
class Device:
    """SMs of four schedulers, GHz, bytes per second, clocks of a warp's instruction by unit."""

    name: str
    architecture: int
    multiprocessors: int
    gigahertz: float
    bandwidth: float
    clocks: tuple[float, float, float, float, float]
    """As `machine_code.PIPES`: float, integer, special, memory, other."""


DEVICES = (
    Device(
        name="A100",
        architecture=80,
        multiprocessors=108,
        gigahertz=1.41,
        bandwidth=2.039e12,
        clocks=(2, 2, 8, 4, 1),
    ),
    Device(
        name="H200",
        architecture=90,
        multiprocessors=132,
        gigahertz=1.755,
        bandwidth=4.8e12,
        clocks=(1, 2, 8, 4, 1),
    ),
)


def estimate(case: dict[str, Any], row: dict[str, Any], device: Device) -> float | None:
    """Return the estimated microseconds of a case's launch, None where its work is not known."""
    work = case["work"]
    if work is None:
        return None
    clocks, times = 0.0, 1.0
    for depth, level in enumerate(row["levels"]):
        if depth and depth <= len(work["trips"]):
            times *= work["trips"][depth - 1]
        busiest = max(n * clock for n, clock in zip(level, device.clocks, strict=True))
        clocks += times * max(busiest, sum(level))
    schedulers = 4 * device.multiprocessors
    seconds = clocks * work["programs"] * case["num_warps"] / schedulers / device.gigahertz / 1e9
    return seconds / EFFICIENCY * 1e6


def floor(case: dict[str, Any], device: Device) -> float | None:
    """Return the microseconds that the operation's bytes take at the device's bandwidth."""
    if case["work"] is None:
        return None
    return case["floor_bytes_per_pixel"] * case["work"]["pixels"] / device.bandwidth * 1e6


def table(report: dict[str, Any]) -> str:
    """Return the report as a Markdown page."""
    versions = report["triton"]
    lines = [
        "# Compiled kernels",
        "",
        f"Made by `warpseg bench kernels --compile` with Triton {' and '.join(versions)}, no GPU, "
        "each kernel as the recipes' launches specialise it.",
        "Code, on sm_80 / sm_90 / sm_100: instructions of one pass of the innermost loop (all of "
        "them where there is none); those of branches rarely taken count. Registers per thread: "
        "the most of the three. Barriers: in that loop. Spills: bytes per thread. No kernel has "
        "double precision in its PTX unless marked f64.",
        "",
    ]
    for version in versions:
        lines += _code(report, version)
    return "\n".join(lines + _times(report, versions[-1]) + _walks()) + "\n"


def _code(report: dict[str, Any], version: str) -> list[str]:
    lines = [
        f"## Code by Triton {version}",
        "",
        "| kernel | warps | instructions | registers | shared bytes | barriers | spills |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in report["cases"]:
        rows = [case["compiled"][version][str(number)] for number in ARCHITECTURES]
        inner = " / ".join(str(row["inner"]) for row in rows)
        most = {name: max(row[name] for row in rows) for name in rows[0] if name != "levels"}
        mark = " f64" if most["double_precision"] else ""
        lines.append(
            f"| {case['name']} | {case['num_warps']} | {inner}{mark} | {most['registers']} | "
            f"{most['shared_bytes']} | {most['inner_barriers']} | {most['stack_bytes']} |"
        )
    return [*lines, ""]


def _times(report: dict[str, Any], version: str) -> list[str]:
    names = [device.name for device in DEVICES]
    lines = [
        "## Estimated time",
        "",
        "**Estimates, not measurements**: microseconds by instruction mix (Triton "
        f"{version}) for all pixels of a recipe's batch, and the least time that the operation's "
        "bytes take. Losses: 8 x 768 x 768 at stride 4, 8 x 512 x 512 at stride 8 (-s8; of "
        "`consistency_kl` 768 x 768); views: 16 x 512 x 1024; the four colours of "
        "`consistency_kl` together. Bytes per pixel of the full-resolution map: moved, and the "
        "least.",
        "",
        f"| kernel | bytes | floor | {' | '.join(f'{n} | {n} floor' for n in names)} |",
        f"|---|---|---|{'---|' * 2 * len(names)}",
    ]
    for case in report["cases"]:
        cells = [f"{case['bytes_per_pixel']:.2f}", f"{case['floor_bytes_per_pixel']:.2f}"]
        for device in DEVICES:
            row = case["compiled"][version][str(device.architecture)]
            cells += [_number(estimate(case, row, device)), _number(floor(case, device))]
        lines.append(f"| {case['name']} | {' | '.join(cells)} |")
    return lines


def _walks() -> list[str]:
    lanes, batch = tile(21)[1], 8
    lines = [
        "",
        "## Walks over the cells",
        "",
        f"How the programs of a loss share {batch} maps of 21 classes, by arithmetic. A program is "
        f"a warp of {lanes} lanes. Rows: pixel rows that all programs together walk down, of "
        "`stride` pixels for each lane. Used: the share of the lanes' pixels that exist and that "
        f"no other lane visits. From stride {COARSE} on cells stand in one line, up to {FEW} "
        "classes; else in strips.",
        "",
        "| stride | crop | programs | rows | used | in strips: programs | rows | used |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for stride in (4, 8, 16):
        for crop in (321, 448, 512):
            coarse = -(-crop // stride)
            cells = [str(stride), str(crop)]
            for how in (in_line if stride >= COARSE else in_strips, in_strips):
                plan = how(batch, coarse, coarse, stride, lanes)
                used = plan.used(lanes, stride, batch * crop**2)
                cells += [f"{plan.programs}", f"{plan.programs * plan.rows:.0f}", f"{used:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _number(microseconds: float | None) -> str:
    return "" if microseconds is None else f"{microseconds:.0f}"
