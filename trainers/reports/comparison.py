"""Runs of several methods over several seeds, side by side: the table of `warpseg compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..runs.kept.record import Row, Run, mean_of
from ..tables import decimal, format_table, percent
from .report import spread_of

HEADINGS = ("method", "seeds", "score %", "±", "difference", "seconds", "images/s", "GiB")


@dataclass(frozen=True)
class Comparison:
    """Finished runs by recipe, in the order that was asked for; the first is what the others are
    compared with."""

    runs: Mapping[str, Sequence[Run]]

    def names(self) -> dict[str, str]:
        """Return each recipe's name without the words in which all end alike."""
        words = [recipe.split("-") for recipe in self.runs]
        shared = 0
        while (
            len(words) > 1
            and all(len(own) > shared + 1 for own in words)
            and len({own[-1 - shared] for own in words}) == 1
        ):
            shared += 1
        return {
            recipe: "-".join(own[: len(own) - shared])
            for recipe, own in zip(self.runs, words, strict=True)
        }

    def rows(self) -> list[Row]:
        """Return a row of plain values for each method: scores are shares of 1, memory is in MiB,
        seconds are those of training alone, a run's mean."""
        names = self.names()
        rows: list[Row] = []
        for recipe, runs in self.runs.items():
            summaries = [run.summary() for run in runs]
            spread = spread_of([summary["last"] for summary in summaries])
            first = rows[0]["mean"] if rows else spread["mean"]
            memory = [summary["peak_memory"] for summary in summaries]
            rows.append(
                {
                    "method": names[recipe],
                    "recipe": recipe,
                    "metric": summaries[0]["metric"],
                    "steps": summaries[0]["steps"],
                    "seeds": [summary["seed"] for summary in summaries],
                    "scores": [summary["last"] for summary in summaries],
                    **spread,
                    "difference": spread["mean"] - first,
                    "seconds": mean_of(summary["seconds"] for summary in summaries),
                    "images_per_second": mean_of(s["images_per_second"] for s in summaries),
                    "peak_memory": max((m for m in memory if m is not None), default=None),
                }
            )
        return rows

    def cells(self) -> list[tuple[str, ...]]:
        """Return the rows as texts below HEADINGS; scores and differences in percent."""
        return [
            (
                row["method"],
                str(len(row["seeds"])),
                percent(row["mean"]),
                percent(row["std"]),
                f"{100 * row['difference']:+.2f}" if number else "-",
                decimal(row["seconds"]),
                decimal(row["images_per_second"]),
                decimal(None if row["peak_memory"] is None else row["peak_memory"] / 1024, 2),
            )
            for number, row in enumerate(self.rows())
        ]

    def table(self) -> str:
        """Return the methods as lines for a terminal."""
        headings, rows = self.groups_table()
        groups = ["", format_table(headings, rows)] if rows else []
        return "\n".join([format_table(HEADINGS, self.cells()), *groups])

    def class_iou(self, recipe: str) -> Row:
        """Return the mean over seeds of the last IoU of each class; None for an absent class."""
        scored = [run.summary()["iou"] or {} for run in self.runs[recipe]]
        labels = {label: 0 for iou in scored for label in iou}
        return {label: mean_of(iou.get(label) for iou in scored) for label in labels}

    def group_scores(self, recipe: str) -> Row:
        """Return the mean over seeds of the last score of each group of images."""
        scored = [run.summary()["groups"] for run in self.runs[recipe]]
        names = {name: 0 for groups in scored for name in groups}
        return {name: mean_of(groups.get(name) for groups in scored) for name in names}

    def groups_table(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and cells, in percent, of every method's score of each group of images;
        no rows where none was asked for."""
        scores = {name: self.group_scores(recipe) for recipe, name in self.names().items()}
        names = list({name: 0 for groups in scores.values() for name in groups})
        rows = [[m, *(percent(s.get(n)) for n in names)] for m, s in scores.items() if s]
        return ["method", *(f"{name} %" for name in names)], rows

    def circumstances(self) -> dict[str, Any]:
        """Return what all runs share: data set, split, versions, protocol."""
        first = next(iter(self.runs.values()))[0]
        shared = {key: first.settings.get(key) for key in ("data", "split", "warpseg", "torch")}
        return {**shared, "evaluation": first.summary()["evaluation"]}

    def to_json(self) -> Row:
        """Return everything as plain values, the IoU of each class as well."""
        return {
            **self.circumstances(),
            "methods": [
                {
                    **row,
                    "iou": self.class_iou(row["recipe"]),
                    "groups": self.group_scores(row["recipe"]),
                }
                for row in self.rows()
            ],
        }
