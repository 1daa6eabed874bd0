"""The stream of weak and strong views of the same crops."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor

from ... import UNLABELED
from ...kernels import warp
from ...kernels.window import window_mask
from ...shards import Sample, Subset
from ..batches import PairedBatch, SecondView
from ..loaders.loading import Loader
from ..loaders.plan import Crops, Pseudo, partial_maps, pseudo_maps
from ..registry import VIEWS
from ..settings import GeometrySettings, StrongSettings
from ..strong import Perturbed
from .options import StreamOptions, completed
from .stream import Stream


class PairedStream(Stream[PairedBatch]):
    """Weak and strong views of the same crops; the masks of the subset are never read, but for
    those of partly labeled images that are handed in."""

    strong: StrongSettings

    def __init__(self, subset: Subset, *, second: bool, **options: Any) -> None:
        super().__init__(subset, **options)
        self._second = second
        self._changing: Loader | None = None
        if self._strong_view().whole:
            # The same crops of images that were changed; their maps are those of the weak views.
            change = self._augmentation(range(self.batch_size))
            plan = replace(self.loader.plan, maps={}, classes=False, change=change)
            self._changing = self._open_loader(plan, options["loader"])

    def _make(self, crops: Crops) -> PairedBatch:
        pixels, window = self._to_device(crops.image), self._to_device(crops.window)
        rows, second, source = range(self.batch_size), None, pixels
        known = self._known(crops, window)
        if self._changing is not None:
            source = self._to_device(self._changing.load(crops.request.position).image)
        made = self._perturb(crops, source, window, rows, paired=True)
        weak = self._normalized(pixels) if made.weak is None else made.weak
        if self._second:
            more = self._perturb(crops, source, window, rows, number=1, paired=True)
            valid = self._valid(more, window, known)
            second = SecondView(strong=more.strong, valid=valid, tps=more.tps)
        label = crops.maps.get("label")
        return PairedBatch(
            weak=self._weak(weak, pixels, crops),
            strong=made.strong,
            window=window,
            valid=self._valid(made, window, known),
            tps=made.tps,
            keys=crops.keys,
            label=None if label is None else self._to_device(label),
            confidence=self._confidence(crops),
            second=second,
            known=known,
        )

    @property
    def _loaders(self) -> tuple[Loader, ...]:
        return (self.loader,) if self._changing is None else (self.loader, self._changing)

    def _known(self, crops: Crops, window: Tensor) -> Tensor | None:
        """Return the pixels of the weak view that masks of partly labeled images speak of."""
        if "known" not in crops.maps:
            return None
        mask = self._to_device(crops.maps["known"])
        return (mask != UNLABELED) & window_mask(window, self.geometry.crop_size)

    def _valid(self, made: Perturbed, window: Tensor, known: Tensor | None) -> Tensor:
        """Return the pixels of a strong view that count: by default those of the window."""
        valid = made.valid
        if valid is None:
            valid = window_mask(window, self.geometry.crop_size)
        if known is None:
            return valid
        if made.tps is not None:
            known = warp(known.to(torch.uint8), made.tps, mode="nearest", fill=0) > 0
        return valid & ~known


def paired(
    subset: Subset,
    *,
    geometry: GeometrySettings,
    batch_size: int,
    strong: StrongSettings | None = None,
    pseudo: Pseudo | None = None,
    second: bool = False,
    partly: Mapping[str, Sample] | None = None,
    **options: Unpack[StreamOptions],
) -> PairedStream:
    """Open the stream of weak and strong views; further options are those of `StreamOptions`.

    Masks of the subset are never read. pseudo: pseudo-labels, cut by the same windows. second: add
    a second strong view, perturbed independently of the first. partly: images of the subset, by
    key, of which a part is labeled, with their masks: what these speak of is no unlabeled pixel.
    Strong views are not made from a distorted weak one, but from the crop.
    Raises ValueError for a subset without samples, or a second view of a view that has none.
    """
    strong = strong or StrongSettings()
    if second and not VIEWS.find(strong.view).twice:
        raise ValueError(
            "a second strong view changes colours, warps the crop or both; its view cannot be "
            f"{strong.view!r}"
        )
    return PairedStream(
        subset,
        maps=partial_maps(partly or {}) if pseudo is None else pseudo_maps("label", pseudo),
        classes=False,
        geometry=geometry,
        batch_size=batch_size,
        strong=strong,
        second=second,
        **completed(options, "unlabeled"),
    )
