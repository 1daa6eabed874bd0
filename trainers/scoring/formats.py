"""Labels for labelling tools and servers, into OUT/labels/: `--out-format` of predict, pseudo-label
and suggest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...shards.labeling.writers.ids import IdWriter
from ...shards.labeling.writers.tools import WRITERS
from ...shards.labeling.writers.writer import Labeled, Writer
from ...shards.sources.cityscapes import CLASSES as CITYSCAPES
from .image_files import Source
from .settings import LabelFormat
from .trained import TrainedNetwork

FOLDER = "labels"
_WITH_POLYGONS = ("labelme", "ultralytics")
"""Formats that are polygons where nothing else is asked for."""


class Labels:
    """The files for one tool, or none, written while images are labeled."""

    def __init__(
        self,
        trained: TrainedNetwork,
        sources: Sequence[Source],
        out: Path,
        settings: LabelFormat,
    ) -> None:
        self._writer = _open(trained, out / FOLDER, settings)
        self._paths = {source.name: source.path for source in sources}

    def add(self, name: str, mask: np.ndarray, confidence: np.ndarray) -> None:
        """Take an image: class ids and confidence in 255ths, uint8 (H, W). For any thread."""
        if self._writer is not None:
            path = self._paths[name]
            known_as = f"{name}{path.suffix}"
            self._writer.add(Labeled(name, path, known_as, mask, confidence))

    def close(self) -> None:
        """Write what is of all images."""
        if self._writer is not None:
            self._writer.close()


def _open(trained: TrainedNetwork, folder: Path, settings: LabelFormat) -> Writer | None:
    """Raises ValueError for ids of a data set that has other classes."""
    name = settings.out_format
    if name == "none":
        return None
    polygons = settings.outlines == "polygons" or (
        settings.outlines == "auto" and name in _WITH_POLYGONS
    )
    common = {
        "folder": folder,
        "classes": trained.classes,
        "palette": trained.palette,
        "model": trained.name,
        "polygons": polygons,
        "tolerance": settings.tolerance,
    }
    if name in WRITERS:
        return WRITERS[name](**common)
    if name == "ade20k":
        return IdWriter(**common, ids=tuple(range(1, len(trained.classes) + 1)))
    if trained.classes != tuple(CITYSCAPES):
        raise ValueError(
            f"--out-format cityscapes is for its {len(CITYSCAPES)} classes; this network has "
            f"{', '.join(trained.classes[:5])}{', ...' if len(trained.classes) > 5 else ''}"
        )
    return IdWriter(**common, ids=tuple(raw for raw, _ in CITYSCAPES.values()))
