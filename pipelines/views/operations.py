"""A contact sheet of what view "sda" draws from, on one image."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..paper import GAP, INK, PAPER, TITLE
from ..settings import StrongSettings
from .sda import OPERATIONS, Draws, augment

COLUMNS = 6
WIDTH = 300
"""Width of a picture in pixels."""


def operations_sheet(
    image: np.ndarray, strong: StrongSettings, *, views: int = 6, seed: int = 0
) -> Image.Image:
    """Draw an image (H, W, 3) uint8, each operation on it, and whole views of the settings."""
    pictures = {"image": image}
    for number, (name, operation) in enumerate(OPERATIONS.items()):
        rng = np.random.default_rng([seed, number])
        official = strong.sda_magnitudes == "official"
        pictures[name] = operation(image, Draws(rng, official=official))
    for number in range(views):
        pictures[f"view {number + 1}"] = augment(image, strong, seed + number)
    height = round(WIDTH * image.shape[0] / image.shape[1])
    rows = -(-len(pictures) // COLUMNS)
    size = (GAP + COLUMNS * (WIDTH + GAP), rows * (height + TITLE) + GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for place, (title, picture) in enumerate(pictures.items()):
        row, column = divmod(place, COLUMNS)
        x, y = GAP + column * (WIDTH + GAP), row * (height + TITLE)
        draw.text((x, y + 4), title, fill=INK, font=font)
        small = Image.fromarray(picture).resize((WIDTH, height), Image.Resampling.BILINEAR)
        sheet.paste(small, (x, y + TITLE))
    return sheet
