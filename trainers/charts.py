"""Line charts as pictures, drawn with Pillow alone."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from .drawing import INK, PAPER

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 18, 40, 48
_ROW = 20
_GRID = (228, 228, 228)
_SCALE = 2
"""Charts are drawn so many times as large and shrunk, which smooths their lines."""

COLOURS = (
    "#1f77b4",
    "#d62728",
    "#2ca02c",
    "#9467bd",
    "#ff7f0e",
    "#17becf",
    "#8c564b",
    "#e377c2",
    "#7f7f7f",
    "#bcbd22",
)


class Curve(NamedTuple):
    """A named line through points (x, y); `dashed` marks what is there for comparison."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def chart(
    curves: Sequence[Curve],
    *,
    title: str,
    across: str,
    up: str,
    y_range: tuple[float, float] | None = None,
    whole_numbers: bool = False,
) -> Image.Image:
    """Draw curves on axes that enclose all points (or `y_range`), a key below.

    whole_numbers: x counts something, so that every whole number has a mark, and no other one.

    Raises ValueError without points.
    """
    points = [point for curve in curves for point in curve.points]
    if not points:
        raise ValueError(f"there is nothing to draw: {title!r} has no points")
    low, high = y_range or (min(y for _, y in points), max(y for _, y in points))
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    across_ticks = [*range(int(first), max(int(last), int(first) + 1) + 1)]
    axes = _Axes(across_ticks if whole_numbers else ticks(first, last), ticks(low, high))
    size = (WIDTH, HEIGHT + _ROW * len(curves))
    picture = Image.new("RGB", (size[0] * _SCALE, size[1] * _SCALE), PAPER)
    draw = ImageDraw.Draw(picture)
    _draw_axes(draw, axes, title, across, up)
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        _draw_curve(draw, [axes.place(x, y) for x, y in curve.points], colour, curve.dashed)
        y = HEIGHT + _ROW * number + 4
        _draw_curve(draw, [(LEFT, y), (LEFT + 28, y)], colour, curve.dashed)
        _text(draw, (LEFT + 38, y), curve.name, "lm")
    return picture.resize(size, Image.Resampling.LANCZOS)


class _Axes:
    def __init__(self, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> None:
        self.x_ticks, self.y_ticks = x_ticks, y_ticks

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point lies on the picture."""
        x_low, x_high, y_low, y_high = (
            self.x_ticks[0],
            self.x_ticks[-1],
            self.y_ticks[0],
            self.y_ticks[-1],
        )
        right = LEFT + (WIDTH - LEFT - RIGHT) * (x - x_low) / (x_high - x_low)
        down = TOP + (HEIGHT - TOP - BOTTOM) * (y_high - y) / (y_high - y_low)
        return right, down


def _draw_axes(draw: ImageDraw.ImageDraw, axes: _Axes, title: str, across: str, up: str) -> None:
    x_low, y_low = axes.x_ticks[0], axes.y_ticks[0]
    for y in axes.y_ticks:
        left, down = axes.place(x_low, y)
        _line(draw, [(left, down), (WIDTH - RIGHT, down)], _GRID)
        _text(draw, (left - 8, down), f"{y:.6g}", "rm")
    for x in axes.x_ticks:
        right, down = axes.place(x, y_low)
        _line(draw, [(right, TOP), (right, down)], _GRID)
        _text(draw, (right, down + 12), f"{x:.6g}", "mm")
    _text(draw, (LEFT, 12), title, "lm", 14)
    _text(draw, (LEFT, 29), up, "lm", 11)
    _text(draw, (WIDTH - RIGHT, HEIGHT - 18), across, "rm", 11)


def _draw_curve(
    draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], colour: str, dashed: bool
) -> None:
    if not dashed:
        _line(draw, points, colour, 2)
        if len(points) <= 40:
            for x, y in points:
                draw.circle((x * _SCALE, y * _SCALE), 3 * _SCALE, fill=colour)
        return
    for (x0, y0), (x1, y1) in pairwise(points):
        count = max(1, round(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5 / 8))
        for part in range(count):
            a, b = part / count, (part + 0.5) / count
            ends = [(x0 + t * (x1 - x0), y0 + t * (y1 - y0)) for t in (a, b)]
            _line(draw, ends, colour, 2)


def _line(
    draw: ImageDraw.ImageDraw,
    points: Sequence[tuple[float, float]],
    colour: str | tuple[int, int, int],
    width: int = 1,
) -> None:
    scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
    draw.line(scaled, fill=colour, width=width * _SCALE, joint="curve")


def _text(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, anchor: str, size: int = 12
) -> None:
    font = ImageFont.load_default(size * _SCALE)
    at = (place[0] * _SCALE, place[1] * _SCALE)
    draw.text(at, text, fill=INK, font=font, anchor=anchor)


def ticks(low: float, high: float) -> list[float]:
    """Return four to eight round numbers that enclose low and high."""
    if high <= low:
        low, high = (0.0, 1.0) if low == 0 else (low - abs(low) / 2, low + abs(low) / 2)
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]
