"""Compare runs: a table, the same as JSON, and a page with curves (report_page.py).

A run's folder holds `settings.json` and `metrics.jsonl`. Training rows have a step, losses, lr,
images_per_second, data_wait and peak_memory (MiB); evaluation rows have a step and `miou` with
`iou` by class, or `accuracy`. Runs whose settings differ by the seed alone are also averaged.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS = ("miou", "accuracy")
NOT_COMPARED = ("seed", "out", "data", "torch", "warpseg")
"""Settings in which runs of one group may differ."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What one run left behind. Rows are in order of step, the last of each step alone."""

    path: Path
    settings: dict[str, Any]
    training: list[Row]
    evaluations: list[Row]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def metric(self) -> str | None:
        """`miou` or `accuracy`, whichever the run was scored by; None before the first score."""
        scored = self.evaluations[-1] if self.evaluations else {}
        return next((name for name in METRICS if name in scored), None)

    def setting(self, name: str) -> Any:
        """Return the outermost setting of a name, or None."""
        level: list[Any] = [self.settings]
        while level:
            groups = [group for group in level if isinstance(group, dict)]
            for group in groups:
                if name in group:
                    return group[name]
            level = [value for group in groups for value in group.values()]
        return None

    def curve(self, name: str) -> list[tuple[float, float]]:
        """Return (step, value) of a loss, `miou` or `accuracy`, where recorded and finite."""
        if name in METRICS:
            pairs = [(row["step"], row.get(name)) for row in self.evaluations]
        else:
            pairs = [(row["step"], row.get("losses", {}).get(name)) for row in self.training]
        return [
            (step, value) for step, value in pairs if value is not None and math.isfinite(value)
        ]

    def summary(self) -> Row:
        """Return the run in one row of plain values; None where it recorded nothing of the kind.

        `last` is the score at the end, `best` the greatest one and its step: a score chosen on the
        set it is taken on is too good, so both are shown.
        """
        metric = self.metric
        scores = self.curve(metric) if metric else []
        best = max(scores, key=lambda pair: pair[1], default=(None, None))
        network = self.setting("network")
        return {
            "run": self.name,
            "recipe": self.setting("recipe") or self.setting("method"),
            "network": network.get("name") if isinstance(network, dict) else network,
            "split": self.setting("split"),
            "seed": self.setting("seed"),
            "steps": max((row["step"] for row in (*self.training, *self.evaluations)), default=0),
            "metric": metric,
            "last": scores[-1][1] if scores else None,
            "best": best[1],
            "best_step": best[0],
            "evaluation": self.evaluations[-1].get("evaluation") if self.evaluations else None,
            "images_per_second": _mean(row.get("images_per_second") for row in self.training),
            "data_wait": _mean(row.get("data_wait") for row in self.training),
            "peak_memory": max(
                (row["peak_memory"] for row in self.training if row.get("peak_memory")),
                default=None,
            ),
            "iou": self.evaluations[-1].get("iou") if self.evaluations else None,
        }


def load_run(path: Path) -> Run:
    """Read a run's folder.

    A last line that was cut off by a kill is left out. Raises FileNotFoundError where the folder is
    no run, and ValueError naming file and line of anything else that cannot be read.
    """
    settings_file, metrics_file = path / "settings.json", path / "metrics.jsonl"
    for file in (settings_file, metrics_file):
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} does not exist: {path} is no run, or has recorded nothing yet"
            )
    try:
        settings = json.loads(settings_file.read_text())
    except ValueError as error:
        raise ValueError(f"{settings_file} is damaged ({error})") from error
    training: dict[int, Row] = {}
    evaluations: dict[int, Row] = {}
    for row in _read_rows(metrics_file):
        rows = evaluations if any(name in row for name in METRICS) else training
        rows[row["step"]] = row
    return Run(path, settings, _in_order(training), _in_order(evaluations))


@dataclass(frozen=True)
class Report:
    """Runs side by side."""

    runs: Sequence[Run]

    def groups(self) -> list[Row]:
        """Return mean and sample deviation of the last scores of runs that differ by the seed."""
        members: dict[str, list[Row]] = {}
        for run in self.runs:
            summary = run.summary()
            if summary["last"] is not None:
                members.setdefault(_identity(run.settings), []).append(summary)
        groups = []
        for rows in members.values():
            if len(rows) < 2:
                continue
            scores = [row["last"] for row in rows]
            shared = {key: rows[0][key] for key in ("recipe", "network", "split", "metric")}
            groups.append(
                {
                    **shared,
                    "runs": [row["run"] for row in rows],
                    "mean": statistics.fmean(scores),
                    "std": statistics.stdev(scores),
                }
            )
        return groups

    def to_json(self) -> Row:
        """Return all summaries and groups as plain values."""
        return {"runs": [run.summary() for run in self.runs], "groups": self.groups()}

    def table(self) -> str:
        """Return the runs as lines for a terminal; scores in percent."""
        text = format_table(HEADINGS, [cells(run.summary()) for run in self.runs])
        lines = [text]
        for group in self.groups():
            lines.append(
                f"\n\n{group['recipe']}, split {group['split']}: {group['metric']} "
                f"{percent(group['mean'])} ± {percent(group['std'])} % over "
                f"{len(group['runs'])} seeds"
            )
        return "".join(lines)


def report(paths: Iterable[Path]) -> Report:
    """Read the folders of runs. Raises as `load_run`, and ValueError for none."""
    runs = [load_run(path) for path in paths]
    if not runs:
        raise ValueError("no runs to report; give one or more folders of runs")
    return Report(runs)


HEADINGS = (
    "run",
    "recipe",
    "split",
    "seed",
    "steps",
    "score",
    "last %",
    "best %",
    "at step",
    "images/s",
    "wait %",
    "GiB",
)


def cells(summary: Row) -> tuple[str, ...]:
    """Return a summary's cells below HEADINGS, `-` for what is not known."""
    memory = summary["peak_memory"]
    return (
        summary["run"],
        _text(summary["recipe"]),
        _text(summary["split"]),
        _text(summary["seed"]),
        _text(summary["steps"]),
        _text(summary["metric"]),
        percent(summary["last"]),
        percent(summary["best"]),
        _text(summary["best_step"]),
        _number(summary["images_per_second"]),
        _number(None if summary["data_wait"] is None else 100 * summary["data_wait"]),
        _number(None if memory is None else memory / 1024, digits=2),
    )


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: words on the left, numbers on the right."""
    columns = list(zip(headings, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(_is_number(cell) for cell in column[1:]) for column in columns]
    lines = []
    for row in (headings, ["-" * width for width in widths], *rows):
        aligned = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def percent(share: float | None) -> str:
    """Return a share of 1 as percent with two digits, `-` for None."""
    return _number(None if share is None else 100 * share, digits=2)


def _read_rows(file: Path) -> list[Row]:
    lines = file.read_text().splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row["step"], int):
                raise TypeError("step is no whole number")
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise ValueError(
                f"{file} line {number} is no row of metrics ({error}); remove the line"
            ) from error
        rows.append(row)
    return rows


def _in_order(rows: dict[int, Row]) -> list[Row]:
    return [rows[step] for step in sorted(rows)]


def _identity(settings: Any) -> str:
    """Return settings without those in which runs of one group differ, as text."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: strip(item) for name, item in value.items() if name not in NOT_COMPARED}
        return value

    return json.dumps(strip(settings), sort_keys=True)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).isdigit()
