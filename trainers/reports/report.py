"""Compare runs: a table, the same as JSON, and a page with curves (report_page.py).

A run's folder holds `settings.json` and `metrics.jsonl`. Training rows have a step, losses, lr,
seconds (since the row before), images_per_second, data_wait and peak_memory (MiB); evaluation rows
have a step and `miou` with `iou` by class, or `accuracy`; the last one also has `networks`, the
same score of other networks of the run. Runs whose settings differ by the seed alone are also
averaged.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runs.kept.record import Row, Run, load_run
from ..tables import decimal, format_table, percent, text_of

NOT_COMPARED = ("seed", "out", "data", "torch", "warpseg", "evaluate_every")
"""Settings in which runs of one group may differ."""


@dataclass(frozen=True)
class Report:
    """Runs side by side."""

    runs: Sequence[Run]

    def names(self) -> list[str]:
        """Return the runs' folders by as few of their last parts as tell them apart, without those
        in which all end alike."""
        parts = [run.path.resolve().parts for run in self.runs]
        while len(parts) > 1 and len({own[-1] for own in parts}) == 1:
            parts = [own[:-1] for own in parts]
        length = 1
        while len({own[-length:] for own in parts}) < len(parts):
            length += 1
        return ["/".join(own[-length:]) for own in parts]

    def summaries(self) -> list[Row]:
        """Return the runs' summaries under names that tell them apart."""
        return [
            {**run.summary(), "run": name}
            for run, name in zip(self.runs, self.names(), strict=True)
        ]

    def differing(self) -> dict[str, list[str]]:
        """Return the settings that are not the same in all runs, each with every run's value."""
        flat = [_flattened(run.settings.get("settings", {})) for run in self.runs]
        every = {name: 0 for settings in flat for name in settings}
        table = {name: [text_of(settings.get(name)) for settings in flat] for name in every}
        return {name: values for name, values in table.items() if len(set(values)) > 1}

    def groups(self) -> list[Row]:
        """Return mean and sample deviation of the last scores of runs that differ by the seed."""
        members: dict[str, list[Row]] = {}
        for run, summary in zip(self.runs, self.summaries(), strict=True):
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
        return {"runs": self.summaries(), "groups": self.groups()}

    def columns(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and cells of the runs' table, without the recipes where the runs are
        called by them."""
        rows = list(map(cells, self.summaries()))
        told = all(row[0] == row[1] for row in rows)
        kept = [number for number in range(len(HEADINGS)) if number != 1 or not told]
        return [HEADINGS[number] for number in kept], [[row[n] for n in kept] for row in rows]

    def table(self) -> str:
        """Return the runs as lines for a terminal; scores in percent."""
        text = format_table(*self.columns())
        tables = (self.networks(), self.image_groups())
        others = [format_table(headings, rows) for headings, rows in tables if rows]
        return "\n\n".join([text, *others, *self.remarks()])

    def networks(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and cells of the scores, in percent, of networks that are not the runs'
        answers; no rows where no run has any."""
        return self._parts("networks")

    def image_groups(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and cells of the scores, in percent, of groups of images; no rows where
        no run has any."""
        return self._parts("groups")

    def _parts(self, kind: str) -> tuple[list[str], list[list[str]]]:
        summaries = self.summaries()
        names = list({name: 0 for summary in summaries for name in summary[kind]})
        rows = [
            [
                summary["run"],
                percent(summary["last"]),
                *(percent(summary[kind].get(name)) for name in names),
            ]
            for summary in summaries
            if summary[kind]
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
            f"{name} is the best of its rounds on the validation set (--select val): its score "
            "is too good"
            for run, name in zip(self.runs, self.names(), strict=True)
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


def _flattened(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level, `optimizer.lr`."""
    if not isinstance(settings, dict):
        return {prefix.removesuffix("."): settings}
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flattened(value, f"{prefix}{name}.")
    return flat


def _identity(settings: Any) -> str:
    """Return settings without those in which runs of one group differ, as text."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: strip(item) for name, item in value.items() if name not in NOT_COMPARED}
        return value

    return json.dumps(strip(settings), sort_keys=True)
