"""What a confusion matrix says of each class: a table, and the matrix itself, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ..runs.kept.record import Run
from ..tables import percent

Matrix = Sequence[Sequence[int]]


@dataclass(frozen=True)
class ClassScore:
    """Shares of 1 of one class; None where a denominator is 0."""

    pixels: int
    """True pixels of the class."""
    iou: float | None
    precision: float | None
    recall: float | None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall, 2 I / (1 + I) of the IoU I."""
        return None if self.iou is None else 2 * self.iou / (1 + self.iou)


def class_scores(confusion: Matrix) -> list[ClassScore]:
    """Return the scores of each class; the matrix counts true classes by predicted ones."""
    true = [sum(row) for row in confusion]
    predicted = [sum(column) for column in zip(*confusion, strict=True)]
    scores = []
    for index, row in enumerate(confusion):
        hits = row[index]
        scores.append(
            ClassScore(
                pixels=true[index],
                iou=_share(hits, true[index] + predicted[index] - hits),
                precision=_share(hits, predicted[index]),
                recall=_share(hits, true[index]),
            )
        )
    return scores


def class_details(runs: Sequence[Run], names: Sequence[str]) -> str:
    """Return, folded up, each run's classes and its confusion matrix at the last score; empty where
    no run recorded one."""
    parts = []
    for run, name in zip(runs, names, strict=True):
        row = run.evaluations[-1] if run.evaluations else {}
        if row.get("confusion") and row.get("iou"):
            labels = list(row["iou"])
            inside = _score_table(labels, row["confusion"]) + _matrix(labels, row["confusion"])
            parts.append(f"<details><summary>{escape(name)}</summary>{inside}</details>")
    if not parts:
        return ""
    return "<h2>Each class, and what it is taken for</h2>" + "\n".join(parts)


def _score_table(labels: Sequence[str], confusion: Matrix) -> str:
    total = sum(map(sum, confusion))
    lines = []
    for label, score in zip(labels, class_scores(confusion), strict=True):
        cells = (
            percent(_share(score.pixels, total)),
            *map(percent, (score.iou, score.precision, score.recall, score.f1)),
        )
        lines.append(f"<tr><td>{escape(label)}</td>{''.join(f'<td>{c}</td>' for c in cells)}</tr>")
    head = "".join(
        f"<th>{word}</th>" for word in ("class", "pixels", "IoU", "precision", "recall", "F1")
    )
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _matrix(labels: Sequence[str], confusion: Matrix) -> str:
    """Return the matrix in percent of each true class; the darker, the more."""
    lines = []
    for label, row in zip(labels, confusion, strict=True):
        total = sum(row)
        cells = "".join(_cell(_share(count, total)) for count in row)
        lines.append(f"<tr><td>{escape(label)}</td>{cells}</tr>")
    head = "".join(f"<th>{escape(label)}</th>" for label in labels)
    note = '<p class="note">Rows: true class; columns: predicted class; percent of the row.</p>'
    return f'{note}<div class="wide"><table><tr><th></th>{head}</tr>{"".join(lines)}</table></div>'


def _cell(share: float | None) -> str:
    if not share:
        return "<td>{}</td>".format("" if share is None else "0")
    return f'<td style="background:rgba(31,119,180,{0.8 * share:.2f})">{100 * share:.0f}</td>'


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
