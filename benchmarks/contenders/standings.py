"""What is known of a race: a row of each run in one file, and the tables that come of them."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from ...trainers.tables import decimal, percent
from ..tables import Result, Table

Row = dict[str, Any]


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample deviation; None for the deviation of one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def over_groups(row: Row) -> float:
    """Return the mean score over groups of images, in which a small scene weighs as a large one."""
    return statistics.fmean(row["groups"].values()) if row.get("groups") else row["score"]


def rows_of(result: Result, name: str) -> list[Row]:
    """Return an entry's rows, by split and seed."""
    rows = [row for row in result["rows"] if row["entry"] == name]
    return sorted(rows, key=lambda row: (row["split"], row["seed"]))


def differences(rows: Iterable[Row], first: Iterable[Row]) -> list[float]:
    """Return how much better each run's mean over groups is than the first entry's on the same
    split with the same seed, where both are there."""
    others = {(row["split"], row["seed"]): over_groups(row) for row in first}
    return [
        over_groups(row) - others[row["split"], row["seed"]]
        for row in rows
        if (row["split"], row["seed"]) in others
    ]


def scores_table(result: Result, names: Sequence[str]) -> Table:
    """Return scores of entries in percent, mean and deviation over splits and seeds; differences
    are from the first entry's runs on the same splits with the same seeds."""
    groups = list(dict.fromkeys(g for row in result["rows"] for g in row.get("groups") or {}))
    first = rows_of(result, names[0]) if names else []
    lines = []
    for name in names:
        rows = rows_of(result, name)
        if not rows:
            continue
        differs = differences(rows, first)
        cells = [name, str(len(rows)), str(rows[0]["steps"])]
        cells += [_pair([row["score"] for row in rows])]
        cells += [_pair([row["groups"][g] for row in rows if g in row["groups"]]) for g in groups]
        cells += [_pair([over_groups(row) for row in rows])] if groups else []
        cells += ["-" if rows == first else _difference(differs), *_costs(rows)]
        lines.append(tuple(cells))
    means = ["mean over groups"] if groups else []
    head = ("entry", "runs", "steps", "all images", *groups, *means, "difference", *COSTS)
    remark = (
        f"mIoU % of the last step on {result['subset']}, ± deviation over splits and seeds; "
        "difference of the mean over groups from the first entry's on the same splits with the "
        "same seeds, ± the deviation of that mean"
    )
    return Table(head, lines, remark)


COSTS = ("device-hours", "CPU-hours", "peak GiB")
"""Of one run: of the clock times the devices, of all cores, and of memory on the device."""


def _costs(rows: Sequence[Row]) -> tuple[str, str, str]:
    cpu = [row["cpu_seconds"] / 3600 for row in rows if row["cpu_seconds"]]
    device = [row["seconds"] * row["ranks"] / 3600 for row in rows if row["seconds"]]
    memory = max((row["peak_memory"] for row in rows if row["peak_memory"]), default=None)
    return (
        decimal(statistics.fmean(device) if device else None, 3),
        decimal(statistics.fmean(cpu) if cpu else None, 3),
        decimal(None if memory is None else memory / 1024, 2),
    )


def _pair(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean, deviation = spread(values)
    return percent(mean) if deviation is None else f"{percent(mean)} ± {percent(deviation)}"


def _difference(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean, deviation = spread(values)
    words = f"{100 * mean:+.2f}"
    return words if deviation is None else f"{words} ± {percent(deviation / len(values) ** 0.5)}"


def missing(result: Result, names: Sequence[str], splits: Sequence[str], seeds: Sequence[int]):
    """Return what is asked for and has no row: (entry, split, seed)."""
    known = {(row["entry"], row["split"], row["seed"]) for row in result["rows"]}
    asked = [(name, split, seed) for name in names for split in splits for seed in seeds]
    return [each for each in asked if each not in known]


def tables(result: Result) -> list[Table]:
    """Return all entries of a race."""
    return [scores_table(result, list(result["entries"]))]
