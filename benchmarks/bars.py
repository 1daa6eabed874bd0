"""Bar charts drawn with Pillow, so that a plot needs no plotting library."""

import math
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH, LABEL, VALUE = 1280, 420, 90
BAR, GAP, MARGIN = 16, 12, 24
COLOURS = ("#b0b7bf", "#6c8ebf", "#d1495b", "#3a7d44")


def draw_bars(path: Path, title: str, groups: Mapping[str, Mapping[str, float]]) -> None:
    """Draw horizontal bars on a logarithmic axis and save them as PNG.

    groups: label of a group -> name of a bar -> its positive value; a name has one colour.
    Raises ValueError where there is nothing to draw.
    """
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    values = [value for bars in groups.values() for value in bars.values()]
    if not values or min(values) <= 0:
        raise ValueError(f"bars need positive values; got {values}")
    font = ImageFont.load_default(14)
    height = sum(BAR * len(bars) + GAP for bars in groups.values()) + 3 * MARGIN + 2 * BAR
    image = Image.new("RGB", (WIDTH, height), "white")
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, MARGIN), title, fill="black", font=font)
    x = LABEL
    for position, name in enumerate(names):
        draw.rectangle((x, MARGIN, x + BAR, MARGIN + BAR), fill=_colour(position))
        draw.text((x + BAR + 6, MARGIN), name, fill="black", font=font)
        x += BAR + 36 + int(font.getlength(name))
    # The shortest bar still shows a tenth of a decade.
    low, high = math.log10(min(values)) - 0.1, math.log10(max(values))
    room = WIDTH - LABEL - VALUE - MARGIN
    y = 2 * MARGIN + BAR
    for label, bars in groups.items():
        draw.text((MARGIN, y), label, fill="black", font=font)
        for name, value in bars.items():
            length = room * (math.log10(value) - low) / (high - low)
            box = (LABEL, y + 1, LABEL + max(1, round(length)), y + BAR - 1)
            draw.rectangle(box, fill=_colour(names.index(name)))
            draw.text((box[2] + 6, y), f"{value:.3g}", fill="black", font=font)
            y += BAR
        y += GAP
    image.save(path)


def _colour(position: int) -> str:
    return COLOURS[position % len(COLOURS)]
