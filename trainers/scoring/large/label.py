"""Label an image by windows and write what becomes of it, a band of windows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....shards.rasters.opened import Raster
from ...progress import Progress
from ..batches import images_in_memory
from ..image_files import Source
from ..settings import PredictSettings
from ..trained import TrainedNetwork
from .open import open_for
from .plan import Placed, along, bands_of_windows, grid_of
from .protocol import protocol_of_windows
from .write import Overview, open_writers

Window = tuple[Placed, np.ndarray]
"""Where a window lies, and its levels (H, W, C)."""


@dataclass(frozen=True)
class Band:
    """The labels of some rows of an image, uint8 (h, W), and their probabilities in 255ths."""

    mask: np.ndarray
    confidence: np.ndarray


def label_large(
    trained: TrainedNetwork,
    source: Source,
    out: Path,
    settings: PredictSettings,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> list[str]:
    """Label an image file by windows and write its mask, confidence and overlay into `out`; return
    what of the file its labels do not rest on.

    No more of it is in memory than a band of windows, where its format allows that (TIFF, NPY).
    The network is in evaluation mode. Raises ValueError for a file that cannot be read so and for
    a protocol that is one of whole images.
    """
    trained = replace(trained, evaluation=protocol_of_windows(trained.evaluation))
    raster, told = open_for(trained, source)
    try:
        size = (raster.shape[0], raster.shape[1])
        overview = None if settings.overlay == "none" else Overview(trained, size)
        with ExitStack() as closing:
            writers = open_writers(closing, trained, source, out, settings, size)
            for band in label_bands(trained, raster, settings, device, dtype, overview):
                for writer, rows in zip(writers, (band.mask, band.confidence), strict=False):
                    writer.add(rows)
            for writer in writers:
                writer.finish()
    finally:
        raster.close()
    if overview is not None:
        overview.save(out, source.name, settings)
    return told


def label_bands(
    trained: TrainedNetwork,
    raster: Raster,
    settings: PredictSettings,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    overview: Overview | None = None,
) -> Iterator[Band]:
    """Yield the labels of an image from above to below, with how long the rest takes on standard
    error."""
    network: Any = trained.network
    grid = grid_of(network, trained.evaluation.multiple)
    margin, least = settings.overlap // 2, getattr(network, "minimum_size", 1)
    rows, columns = (
        along(length, settings.window, margin, grid, least) for length in raster.shape[:2]
    )
    total = len(rows) * len(columns)
    with Progress(total, unit="window", lines=True, estimate=True) as progress:
        progress.say(raster.file)
        progress.reach(0)
        for placed in bands_of_windows(rows, columns):
            first, last = placed[0].rows[2:]
            band = Band(*(np.empty((last - first, raster.shape[1]), np.uint8) for _ in range(2)))
            for batch in _batches(raster, placed, settings, device):
                _label(trained, batch, band, device, dtype, overview)
                progress.reach(progress.done + len(batch))
            yield band


def _label(
    trained: TrainedNetwork,
    batch: list[Window],
    band: Band,
    device: torch.device,
    dtype: torch.dtype,
    overview: Overview | None,
) -> None:
    """Label some windows of one size and put their cores into a band."""
    levels = torch.from_numpy(np.stack([image for _, image in batch]))
    labels, confidences = trained.label(levels.to(device), dtype)
    sure = (confidences * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    for (place, image), label, share in zip(batch, labels.cpu().numpy(), sure, strict=True):
        columns = slice(*place.columns[2:])
        band.mask[:, columns], band.confidence[:, columns] = label[place.inner], share[place.inner]
        if overview is not None:
            overview.add(place, image[place.inner], label[place.inner])


def _batches(
    raster: Raster, placed: list[Placed], settings: PredictSettings, device: torch.device
) -> Iterator[list[Window]]:
    """Yield neighbouring windows of one size, read; one at a time on a CPU."""
    waiting: list[Window] = []
    for place in placed:
        image = np.ascontiguousarray(raster.read(*place.window))
        if waiting and waiting[0][1].shape != image.shape:
            yield waiting
            waiting = []
        waiting.append((place, image))
        most = settings.batch_size if device.type == "cuda" else 1
        if len(waiting) >= max(1, min(most, images_in_memory(device, image.shape))):
            yield waiting
            waiting = []
    if waiting:
        yield waiting
