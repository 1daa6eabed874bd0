"""The contact sheet of suggestions, as a picture and as one HTML page that needs nothing beside it:
each image, what the network sees in it, where it is unsure, and why it was chosen."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...shards import Dataset
from ...shards.archive import write_text
from ..drawing import INK, PAPER, Colour, contact_sheet, legend, overlay, save_picture
from ..labels.suggesting.suggest import SHOWN, Suggestion
from .page import document, note

WIDTH = 300
"""Width of a drawn image in pixels."""
OPACITY = 0.6
TITLES = ("image", "what the network sees", "unsure: bright", "why")
FRAME: Colour = (255, 220, 0)
"""Colour of the frame around a suggested region."""
STYLE = """<style>
.row { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)) minmax(14em, 1.2fr);
  gap: 10px; margin: 14px 0; align-items: start }
.row img, img.legend { width: 100%; border-radius: 4px; display: block }
.row b { word-break: break-all } .row p { margin: .3em 0 } img.legend { width: auto;
  max-width: 100% }
@media (max-width: 700px) { .row { grid-template-columns: 1fr } }
</style>"""


def draw_suggestions(made: Sequence[Suggestion], dataset: Dataset, out: Path) -> None:
    """Write sheet.png and sheet.html of suggestions, of which the first SHOWN have pictures."""
    rows = [(n, s, _columns(s, dataset)) for n, s in enumerate(made[:SHOWN], 1)]
    sheet = contact_sheet(
        [[*columns, _words(n, s)] for n, s, columns in rows],
        TITLES,
        width=WIDTH,
        classes=dataset.classes,
        palette=dataset.palette,
    )
    save_picture(sheet, out / "sheet.png")
    write_text(out / "sheet.html", _page(made, rows, dataset))


def _columns(suggestion: Suggestion, dataset: Dataset) -> list[np.ndarray]:
    """Return the image, the overlay and the doubt of a suggestion, its region framed."""
    picture = suggestion.picture
    assert picture is not None
    drawn = overlay(picture.image, picture.label, dataset.palette, OPACITY)
    grey = picture.image.mean(-1, keepdims=True) * 0.45
    doubt = (255 - picture.confidence.astype(np.float32))[..., None] / 255
    # At chance level of two classes a pixel is as bright as it gets.
    light = np.clip(2 * doubt, 0, 1) * np.array([255, 190, 40], np.float32)
    unsure = np.clip(grey + light, 0, 255).astype(np.uint8)
    return [_framed(values, picture.region) for values in (picture.image, drawn, unsure)]


def _framed(image: np.ndarray, region: tuple[int, int, int, int]) -> np.ndarray:
    top, left, height, width = region
    if (height, width) == image.shape[:2]:
        return image
    canvas = Image.fromarray(image)
    box = (left, top, left + width - 1, top + height - 1)
    line = max(1, round(max(image.shape[:2]) / 150))
    ImageDraw.Draw(canvas).rectangle(box, outline=FRAME, width=line)
    return np.asarray(canvas)


def _words(number: int, suggestion: Suggestion) -> np.ndarray:
    """Draw a suggestion's name and reason, WIDTH pixels wide."""
    font, line = ImageFont.load_default(13), 18
    lines = [f"{number}", *_wrapped(suggestion.name, font)]
    for part in suggestion.reason.split("; "):
        first, *rest = _wrapped(part, font, WIDTH - 26)
        lines += [f"· {first}", *(f"   {words}" for words in rest)]
    strip = Image.new("RGB", (WIDTH, line * len(lines) + 8), PAPER)
    draw = ImageDraw.Draw(strip)
    for row, text in enumerate(lines):
        draw.text((6, 4 + row * line), text, fill=INK, font=font)
    return np.asarray(strip)


def _wrapped(
    text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int = WIDTH - 12
) -> list[str]:
    """Break a text into lines that fit, at spaces where there are some."""
    lines = [""]
    for word in text.split():
        while word:
            joined = f"{lines[-1]} {word}".strip()
            if font.getlength(joined) <= width:
                lines[-1], word = joined, ""
            elif lines[-1]:
                lines.append("")
            else:
                fits = next(n for n in range(len(word), 0, -1) if _fits(word[:n], font, width))
                lines, word = [*lines[:-1], word[:fits], ""], word[fits:]
    return [line for line in lines if line] or [""]


def _fits(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> bool:
    return len(text) == 1 or font.getlength(text) <= width


def _page(
    made: Sequence[Suggestion],
    rows: Sequence[tuple[int, Suggestion, list[np.ndarray]]],
    dataset: Dataset,
) -> str:
    strip = legend(dataset.classes, dataset.palette, 1000)
    parts = [
        STYLE,
        f"<h1>Draw these next: {len(made)} of {escape(dataset.root.name)}</h1>",
        note("Image; what the network sees; where it is unsure (bright); why it was chosen."),
        f'<img class="legend" alt="classes" src="{_png(strip)}">',
    ]
    for number, suggestion, columns in rows:
        pictures = "".join(
            f'<img alt="{escape(title)}" src="{_jpeg(values)}">'
            for title, values in zip(TITLES, columns, strict=False)
        )
        parts.append(f'<div class="row">{pictures}<div>{_told(number, suggestion)}</div></div>')
    parts += [f"<p>{_told(n, s)}</p>" for n, s in enumerate(made[len(rows) :], len(rows) + 1)]
    return document("WarpSeg: what to label next", parts)


def _told(number: int, suggestion: Suggestion) -> str:
    region = suggestion.choice.look.region
    where = f"; {region.width} x {region.height} pixels from ({region.left}, {region.top})"
    reasons = "".join(f"<p>{escape(part)}</p>" for part in suggestion.reason.split("; "))
    whole = (
        suggestion.picture is not None
        and suggestion.picture.region[2:] == (suggestion.picture.image.shape[:2])
    )
    return f"<b>{number}. {escape(suggestion.name)}</b>{'' if whole else where}{reasons}"


def _png(picture: Image.Image) -> str:
    return _embedded(picture, "PNG")


def _jpeg(values: np.ndarray) -> str:
    return _embedded(Image.fromarray(values), "JPEG")


def _embedded(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 88} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
