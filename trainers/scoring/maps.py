"""Maps of an image as files: PNG, or TIFF with the image's georeference."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ...shards.archive import replacing
from ...shards.bands.geo import geo_of
from ...shards.bands.writing import PngRows, RowWriter, TiffRows
from ...shards.rasters.opened import is_tiff
from .settings import PredictSettings


def mask_suffix(path: Path | None, settings: PredictSettings, *, large: bool) -> str:
    """Return the suffix of a mask: .tif of a GeoTIFF, and of a TIFF that is labeled by windows,
    unless another is asked for."""
    if settings.mask_format != "auto":
        return {"png": ".png", "tiff": ".tif"}[settings.mask_format]
    if path is None or not is_tiff(path):
        return ".png"
    return ".tif" if large or geo_of(path) else ".png"


def write_map(path: Path, file: Path, values: np.ndarray, palette: np.ndarray | None) -> None:
    """Write a map, uint8 (H, W), of the image at `path` as a TIFF with the image's georeference."""
    with ExitStack() as closing:
        writer = open_map(closing, path, file, values.shape, palette)
        writer.add(values)
        writer.finish()


def open_map(
    closing: ExitStack,
    path: Path,
    file: Path,
    size: tuple[int, ...],
    palette: np.ndarray | None,
) -> RowWriter:
    """Open a map, of the size of the image at `path`; it takes its place, whole, when `closing`
    ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    opened = closing.enter_context(replacing(file))
    shape = (size[0], size[1])
    if file.suffix == ".png":
        return PngRows(opened, shape, palette)
    return TiffRows(opened, shape, palette, geo_of(path))
