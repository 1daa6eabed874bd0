"""The stream of weak and strong views of the same crops."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...kernels import TPS, StrongView, strong_view
from ...kernels.views.tps import window_mask
from ...shards import Subset
from ..batches import PairedBatch, SecondView
from ..loaders.loading import Loader
from ..loaders.plan import Crops, Pseudo, pseudo_maps
from ..settings import GeometrySettings, LoaderSettings, NormalizationSettings, StrongSettings
from ..views.colour import colour_views
from .stream import Stream


class PairedStream(Stream[PairedBatch]):
    """Weak and strong views of the same crops; the masks of the subset are never read."""

    strong: StrongSettings

    def __init__(self, subset: Subset, *, second: bool, **options: Any) -> None:
        super().__init__(subset, **options)
        self._second = second
        self._changing: Loader | None = None
        if self.strong.whole:
            # The same crops of images that were changed; their maps are those of the weak views.
            change = self._augmentation(self.strong, range(self.batch_size))
            plan = replace(self.loader.plan, maps={}, classes=False, change=change)
            self._changing = self._open_loader(plan, options["loader"])

    def _make(self, crops: Crops) -> PairedBatch:
        pixels, window = self._to_device(crops.image), self._to_device(crops.window)
        second = None
        if self._changing is not None:
            changed = self._to_device(self._changing.load(crops.request.position).image)
            weak, strong = self._normalized(pixels), self._normalized(changed)
            valid, tps = window_mask(window, self.geometry.crop_size), None
        elif self.strong.view == "randaugment":
            weak = self._normalized(pixels)
            strong = self._normalized(self._randaugmented(pixels, self.strong))
            valid, tps = window_mask(window, self.geometry.crop_size), None
        elif self.strong.coloured:
            colours = self._colours(crops, self.strong)
            shown = window if self.strong.view == "mkd" else None
            weak, strong = colour_views(pixels, colours, self.normalization, self.dtype, shown)
            valid, tps = window_mask(window, self.geometry.crop_size), None
            if self._second:
                colours = self._second_colours(crops, self.strong)
                _, more = colour_views(pixels, colours, self.normalization, self.dtype, shown)
                second = SecondView(strong=more, valid=valid, tps=None)
        else:
            views, tps = self._view(pixels, window, 0)
            assert views.weak is not None
            weak, strong, valid = views.weak, views.strong, views.valid
            if self._second:
                more, warped = self._view(pixels, window, 1)
                second = SecondView(strong=more.strong, valid=more.valid, tps=warped)
        label = crops.maps.get("label")
        return PairedBatch(
            weak=self._weak(weak, pixels, crops),
            strong=strong,
            window=window,
            valid=valid,
            tps=tps,
            keys=crops.keys,
            label=None if label is None else self._to_device(label),
            confidence=self._confidence(crops),
            second=second,
        )

    def close(self) -> None:
        """Stop the loaders' threads."""
        if self._changing is not None:
            self._changing.close()
        super().close()

    def _view(self, pixels: Tensor, window: Tensor, number: int) -> tuple[StrongView, TPS | None]:
        """Perturb the crops for the first or the second strong view; the weak comes with the
        first."""
        settings = self.strong
        changed, tps = self._perturbation(settings, view=number)
        view = strong_view(
            pixels,
            photometric=changed,
            tps=tps,
            mean=self.normalization.mean,
            std=self.normalization.std,
            window=window,
            dtype=self.dtype,
            with_weak=number == 0,
            space=settings.photometric_space,
            clamp=settings.clamp,
        )
        return view, tps


def paired(
    subset: Subset,
    *,
    geometry: GeometrySettings,
    batch_size: int,
    strong: StrongSettings | None = None,
    normalization: NormalizationSettings | str = "imagenet",
    loader: LoaderSettings | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pseudo: Pseudo | None = None,
    stream: str = "unlabeled",
    second: bool = False,
    weak_photometric: bool = False,
) -> PairedStream:
    """Open the stream of weak and strong views; the options are those of `labeled`.

    Masks of the subset are never read. pseudo: pseudo-labels, cut by the same windows. second: add
    a second strong view, perturbed independently of the first. Strong views are not made from a
    distorted weak one, but from the crop.
    Raises ValueError for a subset without samples, or a second view where views change whole
    images or are for classification.
    """
    strong = strong or StrongSettings()
    if second and strong.view in ("sda", "randaugment"):
        raise ValueError(
            "a second strong view changes colours, warps the crop or both; its view cannot be "
            f"{strong.view!r}"
        )
    return PairedStream(
        subset,
        maps={} if pseudo is None else pseudo_maps("label", pseudo),
        classes=False,
        geometry=geometry,
        normalization=normalization,
        strong=strong,
        loader=loader or LoaderSettings(),
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        seed=seed,
        rank=rank,
        world_size=world_size,
        stream=stream,
        second=second,
        weak_photometric=weak_photometric,
    )
