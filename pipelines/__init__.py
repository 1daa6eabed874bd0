"""Shards to batches of weak and strong views on the device."""

from .batches import LabeledBatch, PairedBatch, PlainBatch, SecondView
from .settings import (
    NORMALIZATIONS,
    GeometrySettings,
    LoaderSettings,
    NormalizationSettings,
    StrongSettings,
    normalization_of,
)
from .streams.labeled import labeled
from .streams.paired import paired
from .streams.plain import plain
from .streams.show import label_sheet, rounds_sheet, view_sheet

__all__ = [
    "NORMALIZATIONS",
    "GeometrySettings",
    "LabeledBatch",
    "LoaderSettings",
    "NormalizationSettings",
    "PairedBatch",
    "PlainBatch",
    "SecondView",
    "StrongSettings",
    "label_sheet",
    "labeled",
    "normalization_of",
    "paired",
    "plain",
    "rounds_sheet",
    "view_sheet",
]
