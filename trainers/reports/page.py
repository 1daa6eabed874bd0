"""The report as one HTML page that needs nothing beside it: table, curves as SVG, IoU by class.

The parts of the page are functions, which the page of a comparison (comparison_page.py) uses too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from html import escape

from ..charts import COLOURS, ticks
from ..runs.kept.record import METRICS, Row, Run
from ..tables import percent
from .classes import class_details
from .report import Report

TITLES = {"miou": "mIoU (%)", "accuracy": "accuracy (%)"}
MOST_POINTS = 300
"""Points of a drawn curve; longer ones are averaged."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 300, 58, 14, 34, 36

Curve = Sequence[tuple[float, float]]

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 2em auto;
  max-width: 1180px; padding: 0 1em; overflow-wrap: anywhere }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em } h3 { font-size: 1em }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: 4px 10px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child, .word { text-align: left }
.wide { overflow-x: auto }
.sheet { display: flex; flex-wrap: wrap; gap: 8px }
.sheet img { display: block; width: 100%; height: auto }
figure { margin: 0; width: 170px } figcaption { font-size: 13px; color: #444 }
.charts { display: flex; flex-wrap: wrap; gap: 16px }
.key { margin: 0 1.2em .4em 0; display: inline-block; font-size: 13px }
.key i { display: inline-block; width: 18px; height: 4px; vertical-align: middle;
  margin-right: 6px }
.block i { height: 14px }
svg { max-width: 100%; height: auto; border: 1px solid #e4e4e4; border-radius: 4px }
svg text { font: 12px system-ui, sans-serif; fill: #555 }
.note { color: #666; font-size: 13px }
@media (max-width: 600px) { svg text { font-size: 19px } }
"""


def page(report: Report, title: str = "WarpSeg runs", worst: str = "") -> str:
    """Return the HTML text of a report; `worst` is the part of the worst images, drawn already."""
    names = report.names()
    colours = colours_of(len(report.runs))
    parts = [
        f"<h1>{escape(title)}</h1>",
        html_table(*report.columns()) + _notes(report),
        _more("Other networks of the same runs, last", report.networks()),
        _more("Groups of images, last", report.image_groups()),
        "<h2>Curves</h2>",
        colour_key(names, colours),
        curve_charts(report.runs, names, colours),
        class_table(
            [(name, run.summary()["iou"]) for name, run in zip(names, report.runs, strict=True)]
        ),
        class_details(report.runs, names),
        worst,
        _settings(report, names),
    ]
    return document(title, parts)


def document(title: str, parts: Sequence[str]) -> str:
    """Return a whole HTML page of parts that are HTML already."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def colours_of(count: int) -> list[str]:
    """Return as many colours, repeated after the tenth."""
    return [COLOURS[number % len(COLOURS)] for number in range(count)]


def html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain text."""
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    lines = ("".join(f"<td>{escape(text)}</td>" for text in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def curve_charts(runs: Sequence[Run], names: Sequence[str], colours: Sequence[str]) -> str:
    """Return a chart of each score and loss that any run recorded, with a curve for each run."""
    charts = []
    for name in _curve_names(runs):
        scale = 100 if name in METRICS else 1
        # Terms with a slash are parts of a loss, or are only watched.
        label = TITLES.get(name, name if "/" in name else f"loss: {name}")
        scaled = [[(step, scale * value) for step, value in run.curve(name)] for run in runs]
        charts.append(line_chart(label, scaled, colours, names))
    return "\n".join(['<div class="charts">', *charts, "</div>"])


def line_chart(
    title: str, curves: Sequence[Curve], colours: Sequence[str], names: Sequence[str]
) -> str:
    """Return curves over steps as an SVG element; empty curves are left out."""
    thinned = [thin(curve) for curve in curves]
    points = [point for curve in thinned for point in curve]
    x_ticks = ticks(0, max(x for x, _ in points))
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))
    x_high, y_low, y_high = x_ticks[-1], y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / x_high
        down = TOP + (HEIGHT - TOP - BOTTOM) * (y_high - y) / (y_high - y_low)
        return round(across, 1), round(down, 1)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">']
    parts.append(f'<text x="{LEFT}" y="20" style="font-weight:600">{escape(title)}</text>')
    for y in y_ticks:
        down = place(0, y)[1]
        parts.append(f'<path d="M{LEFT} {down}H{WIDTH - RIGHT}" stroke="#e8e8e8"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{down + 4}" text-anchor="end">{y:.6g}</text>')
    for x in x_ticks:
        across = place(x, y_low)[0]
        text = f'<text x="{across}" y="{HEIGHT - 14}" text-anchor="middle">{_short(x)}</text>'
        parts.append(text)
    for curve, colour, name in zip(thinned, colours, names, strict=True):
        placed = [place(x, y) for x, y in curve]
        hint = f"<title>{escape(name)}</title>"
        if len(placed) > 1:
            path = " ".join(f"{x},{y}" for x, y in placed)
            line = f'fill="none" stroke="{colour}" stroke-width="1.8" stroke-linejoin="round"'
            parts.append(f'<polyline points="{path}" {line}>{hint}</polyline>')
        if len(placed) <= 40:
            dots = (
                f'<circle cx="{x}" cy="{y}" r="2.6" fill="{colour}">{hint}</circle>'
                for x, y in placed
            )
            parts += dots
    parts.append("</svg>")
    return "".join(parts)


def thin(curve: Curve) -> list[tuple[float, float]]:
    """Average runs of neighbouring points so that at most MOST_POINTS remain."""
    size = math.ceil(len(curve) / MOST_POINTS)
    if size <= 1:
        return list(curve)
    groups = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def colour_key(names: Sequence[str], colours: Sequence[str], *, block: bool = False) -> str:
    """Say which colour is whose: of lines, or of areas (`block`)."""
    keys = [
        f'<span class="key"><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in zip(names, colours, strict=True)
    ]
    kind = ' class="block"' if block else ""
    return f"<div{kind}>" + "".join(keys) + "</div>"


def note(text: str) -> str:
    """Return a remark in small letters."""
    return f'<p class="note">{escape(text)}</p>'


def class_table(columns: Sequence[tuple[str, Row | None]]) -> str:
    """Return the last IoU by class, a column for each name, behind each number a bar.

    Empty where none of the columns has any.
    """
    scored = [(name, iou) for name, iou in columns if iou]
    if not scored:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name, _ in scored)
    rows = []
    for label in {label: 0 for _, iou in scored for label in iou}:
        bars = "".join(_bar(iou.get(label)) for _, iou in scored)
        rows.append(f"<tr><td>{escape(label)}</td>{bars}</tr>")
    table = f"<table><tr><th>class</th>{head}</tr>{''.join(rows)}</table>"
    return f'<h2>IoU by class, last (%)</h2><div class="wide">{table}</div>'


def _curve_names(runs: Sequence[Run]) -> list[str]:
    losses = {
        name: 0
        for run in runs
        for row in run.training
        for name in row.get("losses", {})
        if ":" not in name
    }
    return [name for name in (*METRICS, *losses) if any(run.curve(name) for run in runs)]


def _more(title: str, table: tuple[list[str], list[list[str]]]) -> str:
    headings, rows = table
    return f"<h2>{title}</h2>{html_table(headings, rows)}" if rows else ""


def _settings(report: Report, names: Sequence[str]) -> str:
    """Return what differs between runs: settings, and the days of their last rows."""
    days = [f"{datetime.fromtimestamp(run.changed):%Y-%m-%d %H:%M}" for run in report.runs]
    rows = [("last row written", *days), *((k, *v) for k, v in report.differing().items())]
    return "<h2>What differs</h2>" + html_table(("setting", *names), rows)


def _notes(report: Report) -> str:
    texts = report.remarks()
    protocols = sorted({str(run.summary()["evaluation"] or "unknown") for run in report.runs})
    texts.append(f"Labels were made by: {'; '.join(protocols)}.")
    texts.append("“best” is chosen on the set it is scored on, so it is too good; compare “last”.")
    return "".join(map(note, texts))


def _bar(share: float | None) -> str:
    if share is None:
        return "<td>absent</td>"
    stop = f"{100 * share:.1f}%"
    style = f"background:linear-gradient(90deg,#cfe3f5 {stop},transparent {stop})"
    return f'<td style="{style}">{percent(share)}</td>'


def _short(step: float) -> str:
    return f"{step / 1000:g}k" if step >= 1000 else f"{step:g}"
