"""Shards to batches of weak and strong views on the device."""

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .batches import LabeledBatch as LabeledBatch
    from .batches import PairedBatch as PairedBatch
    from .batches import PlainBatch as PlainBatch
    from .batches import SecondView as SecondView
    from .normalization import NORMALIZATIONS as NORMALIZATIONS
    from .normalization import NormalizationSettings as NormalizationSettings
    from .normalization import normalization_of as normalization_of
    from .settings import GeometrySettings as GeometrySettings
    from .settings import LoaderSettings as LoaderSettings
    from .settings import StrongSettings as StrongSettings
    from .streams.labeled import labeled as labeled
    from .streams.paired import paired as paired
    from .streams.plain import plain as plain
    from .streams.show import label_sheet as label_sheet
    from .streams.show import rounds_sheet as rounds_sheet
    from .streams.show import view_sheet as view_sheet

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".batches": (
            "LabeledBatch",
            "PairedBatch",
            "PlainBatch",
            "SecondView",
        ),
        ".normalization": (
            "NORMALIZATIONS",
            "NormalizationSettings",
            "normalization_of",
        ),
        ".settings": (
            "GeometrySettings",
            "LoaderSettings",
            "StrongSettings",
        ),
        ".streams.labeled": ("labeled",),
        ".streams.paired": ("paired",),
        ".streams.plain": ("plain",),
        ".streams.show": (
            "label_sheet",
            "rounds_sheet",
            "view_sheet",
        ),
    },
)
