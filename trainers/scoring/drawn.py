"""What is written of a labeled image: mask, overlay, confidence; each whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...plain import one_line
from ...shards.bands.shown import as_picture
from ..drawing import Colour, indexed_image, overlay, palette_table, with_legend
from .maps import write_map
from .settings import PredictSettings
from .trained import TrainedNetwork

FORMATS = {"jpeg": ".jpg", "png": ".png"}


@dataclass(frozen=True)
class Labeled:
    """An image (H, W, C), its class ids and their probabilities in 255ths, uint8 (H, W)."""

    name: str
    image: np.ndarray
    mask: np.ndarray
    confidence: np.ndarray


def write_files(
    out: Path,
    labeled: Labeled,
    trained: TrainedNetwork,
    settings: PredictSettings,
    like: Path | None = None,
) -> None:
    """Draw and write all files of one image; like: the TIFF whose form and georeference its maps
    take, in place of PNG."""
    name, mask, palette = labeled.name, labeled.mask, trained.palette
    maps: dict[str, tuple[np.ndarray, np.ndarray | None]]
    maps = {"masks": (mask, palette_table(palette))}
    if settings.confidence:
        maps["confidence"] = (labeled.confidence, None)
    for folder, (values, table) in maps.items():
        file = out / folder / name
        if like is not None:
            write_map(like, file.with_name(f"{file.name}.tif"), values, table)
            continue
        picture = Image.fromarray(values) if table is None else indexed_image(values, palette)
        save(picture, file.with_name(f"{file.name}.png"))
    if settings.overlay == "none":
        return
    image = as_picture(labeled.image, trained.channels)
    drawn = overlay(image, mask, palette, settings.opacity)
    if settings.legend:
        picture = with_legend_of(drawn, mask, trained.classes, palette)
    else:
        picture = Image.fromarray(drawn)
    save(picture, out / "overlays" / f"{name}{FORMATS[settings.overlay]}")


def with_legend_of(
    drawn: np.ndarray, mask: np.ndarray, classes: Sequence[str], palette: Sequence[Colour]
) -> Image.Image:
    """Return a drawn picture with the names of the classes that its mask shows."""
    counts = np.bincount(mask.ravel(), minlength=len(classes))
    shown = np.flatnonzero(counts[: len(classes)])
    return with_legend(drawn, classes, palette, shown.tolist())


def save(picture: Image.Image, file: Path) -> None:
    """Write a picture aside and rename it, so that no half-written one is ever found."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.partial")
    try:
        if file.suffix == ".jpg":
            picture.save(aside, "JPEG", quality=90)
        else:
            picture.save(aside, "PNG", compress_level=3)
        os.replace(aside, file)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OSError(
            f"{file} could not be written ({one_line(error.strerror or error)}); see that its "
            "folder is there and has room"
        ) from error
