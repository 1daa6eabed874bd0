"""Pictures of masks: palette images, overlays with class borders, legends, contact sheets.

Arrays are uint8: images (H, W, 3) RGB, masks (H, W) class ids. Only Pillow and NumPy are used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .. import IGNORE
from ..shards.archive import replacing

Colour = tuple[int, int, int]

IGNORE_COLOUR: Colour = (255, 255, 255)
"""Palette entry of IGNORE in indexed PNGs."""
PAPER: Colour = (250, 250, 250)
INK: Colour = (32, 32, 32)


def palette_table(palette: Sequence[Colour]) -> np.ndarray:
    """Return the colour of every uint8 value, (256, 3); black behind the classes."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = np.asarray(palette, np.uint8).reshape(-1, 3)
    table[IGNORE] = IGNORE_COLOUR
    return table


def indexed_image(mask: np.ndarray, palette: Sequence[Colour]) -> Image.Image:
    """Return a mask as a palette image: its values are the class ids, its colours the palette's."""
    image = Image.fromarray(mask)
    image.putpalette(palette_table(palette).tobytes())
    return image


def overlay(
    image: np.ndarray, mask: np.ndarray, palette: Sequence[Colour], opacity: float = 0.55
) -> np.ndarray:
    """Lay a mask's colours over its image, with a thin dark border between classes.

    IGNORE pixels show the image alone. `opacity` in [0, 1] is the colours' share.
    """
    share = np.full((256, 1), round(256 * opacity), np.uint16)
    share[IGNORE] = 0
    weight = share[mask]
    blend = palette_table(palette)[mask].astype(np.uint16) * weight
    blend += image.astype(np.uint16) * (256 - weight)
    drawn = (blend >> 8).astype(np.uint8)
    if opacity > 0:
        drawn[_borders(mask)] //= 3
    return drawn


def _borders(mask: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour is of another class: bool (H, W)."""
    border = np.zeros(mask.shape, bool)
    border[:, :-1] = mask[:, :-1] != mask[:, 1:]
    border[:-1] |= mask[:-1] != mask[1:]
    return border


def legend(
    classes: Sequence[str],
    palette: Sequence[Colour],
    width: int,
    *,
    shown: Sequence[int] | None = None,
    font_size: int = 14,
) -> Image.Image:
    """Draw a strip of colour swatches and class names, as many rows as `width` pixels need.

    `shown` lists the class ids to draw, in order; all of them without it. `width` holds at least
    one entry: names that are too long for it are cut.
    """
    font = ImageFont.load_default(font_size)
    swatch, gap, row = font_size, font_size // 2, round(font_size * 1.7)
    entries = range(len(classes)) if shown is None else shown
    widths = [math.ceil(font.getlength(classes[i])) + swatch + 3 * gap for i in entries]
    cell = min(max(widths, default=width), width - gap)
    columns = max(1, (width - gap) // cell)
    rows = max(1, -(-len(widths) // columns))
    strip = Image.new("RGB", (width, rows * row + gap), PAPER)
    draw = ImageDraw.Draw(strip)
    for place, index in enumerate(entries):
        x = gap + place % columns * cell
        y = gap + place // columns * row
        colour = tuple(palette[index])
        draw.rectangle((x, y, x + swatch, y + swatch), fill=colour, outline=INK)
        name = _fitted(classes[index], font, cell - swatch - 2 * gap)
        draw.text((x + swatch + gap, y + swatch / 2 + 1), name, fill=INK, font=font, anchor="lm")
    return strip


def with_legend(
    image: np.ndarray,
    classes: Sequence[str],
    palette: Sequence[Colour],
    shown: Sequence[int] | None = None,
) -> Image.Image:
    """Put a legend below a picture, its letters in proportion to the picture's size."""
    picture = Image.fromarray(image)
    font_size = min(max(round(min(picture.size) / 26), 11), 64)
    strip = legend(classes, palette, picture.width, shown=shown, font_size=font_size)
    return stack([picture, strip])


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Set pictures below one another, on the left."""
    width = max(picture.width for picture in pictures)
    whole = Image.new("RGB", (width, sum(picture.height for picture in pictures)), PAPER)
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    return whole


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    *,
    width: int = 320,
    classes: Sequence[str] = (),
    palette: Sequence[Colour] = (),
) -> Image.Image:
    """Draw rows of images under column titles; with classes, a legend below.

    Each image is drawn `width` pixels wide; a row is as high as its tallest image.
    """
    gap, head = 6, 26
    columns = len(titles)
    sheet_width = columns * (width + gap) + gap
    title = Image.new("RGB", (sheet_width, head), PAPER)
    draw, font = ImageDraw.Draw(title), ImageFont.load_default(14)
    for column, text in enumerate(titles):
        x = gap + column * (width + gap)
        draw.text((x, head / 2 + 2), _fitted(text, font, width), fill=INK, font=font, anchor="lm")
    strips = [title]
    for row in rows:
        pictures = [_fit_width(Image.fromarray(image), width) for image in row]
        strip = Image.new("RGB", (sheet_width, max(p.height for p in pictures) + gap), PAPER)
        for column, picture in enumerate(pictures):
            strip.paste(picture, (gap + column * (width + gap), 0))
        strips.append(strip)
    if classes:
        strips.append(legend(classes, palette, sheet_width))
    return stack(strips)


def _fit_width(picture: Image.Image, width: int) -> Image.Image:
    height = max(1, round(picture.height * width / picture.width))
    # Small pictures (CIFAR-10) keep their pixels when they are enlarged.
    smooth = picture.width >= width
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return picture.resize((width, height), how)


def _fitted(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float) -> str:
    """Cut a text so that it is at most `width` pixels wide."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def save_picture(picture: Image.Image, file: Path, **options: Any) -> None:
    """Write a picture, whole or not at all, in the format that the file's suffix names.

    Raises ValueError for a suffix of no format, and OSError naming a file that cannot be written.
    """
    kind = Image.registered_extensions().get(file.suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"{file} is no name of a picture: let it end in .png, .jpg or .webp")
    with replacing(file) as stream:
        picture.save(stream, kind, **options)
