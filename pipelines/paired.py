"""The stream of weak and strong views of the same crops."""

import torch

from ..kernels import strong_view
from ..kernels.tps import window_mask
from ..shards import Subset
from .batches import PairedBatch
from .colour import colour_views
from .loading import Crops
from .settings import GeometrySettings, LoaderSettings, NormalizationSettings, StrongSettings
from .streams import Pseudo, Stream, pseudo_maps


class PairedStream(Stream[PairedBatch]):
    """Weak and strong views of the same crops; the masks of the subset are never read."""

    strong: StrongSettings

    def _make(self, crops: Crops) -> PairedBatch:
        pixels, window = self._to_device(crops.image), self._to_device(crops.window)
        settings, tps = self.strong, None
        if settings.view == "colour":
            colours = self._colours(crops, settings)
            weak, strong = colour_views(pixels, colours, self.normalization, self.dtype)
            valid = window_mask(window, self.geometry.crop_size)
        else:
            changed, tps = self._perturbation(settings)
            views = strong_view(
                pixels,
                photometric=changed,
                tps=tps,
                mean=self.normalization.mean,
                std=self.normalization.std,
                window=window,
                dtype=self.dtype,
                with_weak=True,
                space=settings.photometric_space,
                clamp=settings.clamp,
            )
            assert views.weak is not None
            weak, strong, valid = views.weak, views.strong, views.valid
        label = crops.maps.get("label")
        return PairedBatch(
            weak=weak,
            strong=strong,
            window=window,
            valid=valid,
            tps=tps,
            keys=crops.keys,
            label=None if label is None else self._to_device(label),
            confidence=self._confidence(crops),
        )


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
) -> PairedStream:
    """Open the stream of weak and strong views; the options are those of `labeled`.

    Masks of the subset are never read. pseudo: pseudo-labels, cut by the same windows.
    Raises ValueError for a subset without samples.
    """
    return PairedStream(
        subset,
        maps={} if pseudo is None else pseudo_maps("label", pseudo),
        classes=False,
        geometry=geometry,
        normalization=normalization,
        strong=strong or StrongSettings(),
        loader=loader or LoaderSettings(),
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        seed=seed,
        rank=rank,
        world_size=world_size,
        stream=stream,
    )
