"""Compare runs: a table, the same as JSON, and a page with curves (report_page.py).

A run's folder holds `settings.json` and `metrics.jsonl`. Training rows have a step, losses, lr,
seconds (since the row before), images_per_second, data_wait and peak_memory (MiB); evaluation rows
have a step and `miou` with `iou` by class, or `accuracy`; the last one also has `networks`, the
same score of other networks of the run. Runs whose settings differ by the seed alone are also
averaged.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .tables import decimal, format_table, percent, text_of

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
            "seconds": sum(row.get("seconds", 0) for row in self.training) or None,
            "images_per_second": mean_of(row.get("images_per_second") for row in self.training),
            "data_wait": mean_of(row.get("data_wait") for row in self.training),
            "peak_memory": max(
                (row["peak_memory"] for row in self.training if row.get("peak_memory")),
                default=None,
            ),
            "iou": self.evaluations[-1].get("iou") if self.evaluations else None,
            "networks": self.evaluations[-1].get("networks", {}) if self.evaluations else {},
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
            shared = {key: rows[0][key] for key in ("recipe", "network", "split", "metric")}
            spread = spread_of([row["last"] for row in rows])
            groups.append({**shared, "runs": [row["run"] for row in rows], **spread})
        return groups

    def to_json(self) -> Row:
        """Return all summaries and groups as plain values."""
        return {"runs": [run.summary() for run in self.runs], "groups": self.groups()}

    def table(self) -> str:
        """Return the runs as lines for a terminal; scores in percent."""
        text = format_table(HEADINGS, [cells(run.summary()) for run in self.runs])
        headings, rows = self.networks()
        others = [format_table(headings, rows)] if rows else []
        return "\n\n".join([text, *others, *self.remarks()])

    def networks(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and cells of the scores, in percent, of networks that are not the runs'
        answers; no rows where no run has any."""
        summaries = [run.summary() for run in self.runs]
        names = list({name: 0 for summary in summaries for name in summary["networks"]})
        rows = [
            [
                summary["run"],
                percent(summary["last"]),
                *(percent(summary["networks"].get(name)) for name in names),
            ]
            for summary in summaries
            if summary["networks"]
        ]
        return ["run", "last %", *(f"{name} %" for name in names)], rows

    def remarks(self) -> list[str]:
        """Return what has to be said of the numbers: means over seeds, scores chosen by."""
        means = [
            f"{group['recipe']}, split {group['split']}: {group['metric']} "
            f"{percent(group['mean'])} ± {percent(group['std'])} % over {len(group['runs'])} seeds"
            for group in self.groups()
        ]
        chosen = [
            f"{run.name} is the best of its rounds on the validation set (--select val): its score "
            "is too good"
            for run in self.runs
            if run.setting("select") == "val"
        ]
        return means + chosen


def report(paths: Iterable[Path]) -> Report:
    """Read the folders of runs, each once. Raises as `load_run`, and ValueError for none."""
    runs = [load_run(path) for path in {path.resolve(): path for path in paths}.values()]
    if not runs:
        raise ValueError("no runs to report; give one or more folders of runs")
    return Report(runs)


def spread_of(scores: Sequence[float]) -> Row:
    """Return mean and sample deviation of scores; the deviation of a single one is None."""
    deviation = statistics.stdev(scores) if len(scores) > 1 else None
    return {"mean": statistics.fmean(scores), "std": deviation}


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are known, None where there are none."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


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
        text_of(summary["recipe"]),
        text_of(summary["split"]),
        text_of(summary["seed"]),
        text_of(summary["steps"]),
        text_of(summary["metric"]),
        percent(summary["last"]),
        percent(summary["best"]),
        text_of(summary["best_step"]),
        decimal(summary["images_per_second"]),
        decimal(None if summary["data_wait"] is None else 100 * summary["data_wait"]),
        decimal(None if memory is None else memory / 1024, digits=2),
    )


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
