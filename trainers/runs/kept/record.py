"""Read what a run left behind.

A run's folder holds `settings.json` and `metrics.jsonl`. Training rows have a step, losses, lr,
seconds (since the row before), cpu_seconds (of this process, on all cores), images_per_second,
data_wait and peak_memory (MiB); evaluation rows have a step and `miou` with `iou` by class, or
`accuracy`; the last one also has `networks`, the same score of other networks of the run.
"""

from __future__ import annotations

import math
import os
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....plain import read_json
from ...engine.journal import read_rows

METRICS = ("miou", "accuracy")
_TAIL = 2**17
"""Bytes of metrics.jsonl that hold its last rows."""

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
    def changed(self) -> float:
        """When the last row was written, in seconds since 1970."""
        return (self.path / "metrics.jsonl").stat().st_mtime

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
            "cpu_seconds": sum(row.get("cpu_seconds", 0) for row in self.training) or None,
            "images_per_second": mean_of(row.get("images_per_second") for row in self.training),
            "data_wait": mean_of(row.get("data_wait") for row in self.training),
            "peak_memory": max(
                (row["peak_memory"] for row in self.training if row.get("peak_memory")),
                default=None,
            ),
            "iou": self.evaluations[-1].get("iou") if self.evaluations else None,
            "groups": self.evaluations[-1].get("groups", {}) if self.evaluations else {},
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
    settings = read_json(settings_file, dict[str, Any], "bring it back from a copy of the run")
    training: dict[int, Row] = {}
    evaluations: dict[int, Row] = {}
    for row in read_rows(metrics_file):
        rows = evaluations if any(name in row for name in METRICS) else training
        rows[row["step"]] = row
    return Run(path, settings, _in_order(training), _in_order(evaluations))


def last_step(path: Path) -> int:
    """Return the step of the last whole row in a run's folder, 0 where there is none yet: cheap
    enough to be asked while the run is at work."""
    try:
        with (path / "metrics.jsonl").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - _TAIL, 0))
            steps = re.findall(rb'^\{"step": (\d+),.*\}$', file.read(), re.MULTILINE)
    except FileNotFoundError:
        return 0
    return int(steps[-1]) if steps else 0


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are known, None where there are none."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _in_order(rows: dict[int, Row]) -> list[Row]:
    return [rows[step] for step in sorted(rows)]
