"""What the endless streams of training share: order, state, ranks, the way to the device.

The loader delivers uint8 crops; the device half here makes network inputs of them. All randomness
is a function of (seed, stream, position), so that a stream's state is its position: a resumed
stream continues bit for bit, under either loader and with any number of ranks.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...kernels import normalize
from ...kernels.window import window_mask
from ...shards import Sample, Subset
from ...shards.pools.settings import PoolSettings
from ..batches import LabeledBatch, PairedBatch
from ..loaders.choosing import build_loader
from ..loaders.focus import Focus, FocusSettings
from ..loaders.loading import Loader
from ..loaders.mixed import MixedPlan, PooledRows, open_pool
from ..loaders.plan import Change, Crops, MapSource, Plan
from ..loaders.sampling import COLOUR, Sampler
from ..normalization import NormalizationSettings, normalization_of
from ..settings import GeometrySettings, LoaderSettings, StrongSettings
from ..strong import Crop, Perturbed, View, build_view
from ..threads import one_thread
from ..views.distortion import Distortion, distort, sample_distortion
from .kinds import check_channels, fill_of

Batch = TypeVar("Batch", LabeledBatch, PairedBatch)

_DISTORTION, _POOL = 4, 11
"""What is drawn at a step; strong views take other numbers, from 0 to 10."""


class Stream(ABC, Generic[Batch]):
    """An endless iterator of batches, the same on every run and under every loader.

    `skipped` counts the corrupt samples of this rank for which others stood in; `lost`, by "images"
    and "tars", what of its pool could not be read; `changed`, by "images", what of it does not show
    all that its files have.
    """

    def __init__(
        self,
        subset: Subset,
        *,
        maps: dict[str, MapSource],
        geometry: GeometrySettings,
        normalization: NormalizationSettings | str,
        strong: StrongSettings | None,
        loader: LoaderSettings,
        batch_size: int,
        device: torch.device | str,
        dtype: torch.dtype,
        seed: int,
        rank: int,
        world_size: int,
        stream: str,
        classes: bool,
        weak_photometric: bool,
        pool: PoolSettings | None,
        focus: FocusSettings | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more; got {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in [0, {world_size}); got {rank}")
        self.normalization = normalization_of(normalization)
        channels = subset.dataset.channels
        check_channels(channels.kind, self.normalization, weak_photometric, pool, loader)
        self.view = None if strong is None else build_view(strong, self.normalization, dtype)
        if self.view is not None:
            self.view.check_channels(channels.kind)
        moved = self.view is not None and self.view.moves
        if strong is not None and moved and subset.dataset.task != "classification":
            raise ValueError(
                f"view {strong.view} moves pixels without their masks: it is for images that are "
                "classified as wholes; choose another"
            )
        mixed = pool is not None and pool.share < 1
        samples = subset.samples() if pool is None or mixed else []
        self.geometry, self.strong, self.weak_photometric = geometry, strong, weak_photometric
        self.device, self.dtype = torch.device(device), dtype
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.epoch_size = max(len(samples), 1)
        self._sampler = Sampler(
            seed=seed,
            stream=stream,
            samples=len(samples) if pool is None or mixed else 1,
            shuffle_buffer=loader.shuffle_buffer,
        )
        self._identity = {"stream": stream, "seed": seed, "samples": _digest(samples)}
        self._position = 0
        self.skipped = 0
        made: dict[str, Any] = {
            "samples": samples,
            "sampler": self._sampler,
            "geometry": geometry,
            "batch_size": batch_size,
            "fill": fill_of(geometry, self.normalization, channels),
            "bands": channels.kind,
            "maps": maps,
            "classes": classes,
            "focus": self._focus(subset, focus, samples),
        }
        self._pooled: PooledRows | None = None
        if pool is not None:
            drawn = self._sampler.seed_at(0, _POOL)
            self._pooled = open_pool(pool, loader, drawn, rank, batch_size, world_size)
            self._identity |= self._pooled.identity
        plan = Plan(**made) if self._pooled is None else MixedPlan(**made, pooled=self._pooled)
        self.loader = self._open_loader(plan, loader)

    def _focus(
        self, subset: Subset, settings: FocusSettings | None, samples: Sequence[Sample]
    ) -> Focus | None:
        if settings is None or not settings.share:
            return None
        return Focus(settings, subset.dataset.class_counts(samples), self._sampler)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        crops = self.loader.load(self._own_position)
        batch = self._make(crops)
        self.skipped += crops.skipped
        self._position += self.batch_size * self.world_size
        if self._pooled is not None:
            self._pooled.passed(self._own_position)
        return batch

    @property
    def _own_position(self) -> int:
        """Where this rank's part of the coming batch begins."""
        return self._position + self.rank * self.batch_size

    @property
    def epoch(self) -> float:
        """Epochs seen so far by all ranks together."""
        return self._position / self.epoch_size

    @property
    def lost(self) -> dict[str, int]:
        """What of the pool could not be read so far, by kind; empty without a pool."""
        if self._pooled is None:
            return {}
        return dict(zip(("images", "tars"), self._pooled.lost, strict=True))

    @property
    def changed(self) -> dict[str, int]:
        """How many images of the pool were shown without transparency, further channels, pages or
        bits, or encoded anew, by kind; empty without a pool."""
        return {} if self._pooled is None else {"images": self._pooled.changed}

    def state_dict(self) -> dict[str, Any]:
        """Return the state: plain values, the same on every rank but for the count of skipped and
        the places in a pool."""
        state = {**self._identity, "position": self._position, "skipped": self.skipped}
        if self._pooled is not None:
            state["pooled"] = self._pooled.state(self._own_position)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the state was taken.

        Raises ValueError where it was taken from other samples, another seed or another stream.
        """
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise ValueError(
                    f"the state of the {self._identity['stream']} stream has another {name} "
                    f"({state.get(name)}, now {value}): resume with the data and the seed it had"
                )
        self._position = int(state["position"])
        self.skipped = int(state.get("skipped", 0))
        if self._pooled is not None:
            self._pooled.go_to(state["pooled"])
            for loader in self._loaders:
                loader.restart()

    def close(self) -> None:
        """Stop the loader's threads."""
        for loader in self._loaders:
            loader.close()
        if self._pooled is not None:
            self._pooled.close()

    @property
    def _loaders(self) -> tuple[Loader, ...]:
        return (self.loader,)

    def _open_loader(self, plan: Plan, settings: LoaderSettings) -> Loader:
        """Return the loader of the batches."""
        if plan.change is not None and settings.cache == "device":
            assert self.strong is not None
            raise ValueError(
                f"view {self.strong.view} changes images before they are cut, which "
                "--loader.cache device cannot: choose --loader.cache host or none"
            )
        return build_loader(plan, settings, self.batch_size * self.world_size, self.device)

    @abstractmethod
    def _make(self, crops: Crops) -> Batch:
        """Turn crops into the batch."""

    def _strong_view(self) -> View:
        assert self.view is not None
        return self.view

    def _perturb(
        self,
        crops: Crops,
        pixels: Tensor,
        window: Tensor,
        rows: Sequence[int],
        *,
        number: int = 0,
        paired: bool,
    ) -> Perturbed:
        """Make the strong view of this rank's rows of the step: their pixels (n, H, W, 3) uint8,
        their windows (n, 4)."""
        first = self.rank * self.batch_size
        crop = Crop(
            pixels=pixels,
            window=window
            if len(rows) == len(window)
            else window[self._to_device(torch.tensor(rows))],
            rows=tuple(first + row for row in rows),
            total=self.batch_size * self.world_size,
            draws=crops.request.draws[list(rows)][:, COLOUR],
            seed_of_step=partial(self._sampler.seed_at, self._position),
            seed_of_crop=lambda place, purpose: self._sampler.seed_at(
                self._position + first + rows[place], purpose
            ),
            number=number,
            paired=paired,
        )
        return self._strong_view().perturb(crop)

    def _normalized(self, pixels: Tensor) -> Tensor:
        """Return crops (N, H, W, C) as the network wants them."""
        with one_thread(pixels.device):
            return normalize(pixels, self.normalization.mean, self.normalization.std, self.dtype)

    def _weak(self, plain: Tensor, pixels: Tensor, crops: Crops) -> Tensor:
        """Return the plain weak view, or that of distorted pixels (N, H, W, 3) where asked for.

        Padding stays as it is in the plain view.
        """
        if not self.weak_photometric:
            return plain
        first = self.rank * self.batch_size
        drawn = sample_distortion(
            self.batch_size * self.world_size, generator=self._generator(_DISTORTION)
        )
        own = {name: v[first : first + self.batch_size] for name, v in vars(drawn).items()}
        image = distort(pixels.permute(0, 3, 1, 2) / 255, Distortion(**own))
        mean, std = (
            self._to_device(torch.tensor(values))[:, None, None]
            for values in (self.normalization.mean, self.normalization.std)
        )
        shown = window_mask(self._to_device(crops.window), self.geometry.crop_size)[:, None]
        weak = torch.where(shown, ((image - mean) / std).to(plain.dtype), plain)
        return weak.contiguous(memory_format=torch.channels_last)

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._sampler.seed_at(self._position, purpose))

    def _augmentation(self, rows: Collection[int]) -> Change:
        """Return what a view of whole images does to those of some of this rank's rows."""
        first, total = self.rank * self.batch_size, self.batch_size * self.world_size
        view, sampler = self._strong_view(), self._sampler

        def change(image: np.ndarray, position: int) -> np.ndarray:
            if position % total - first not in rows:
                return image
            return view.change(image, partial(sampler.seed_at, position))

        return change

    def _to_device(self, values: Tensor) -> Tensor:
        if self.device.type == "cuda" and not values.is_cuda:
            values = values.pin_memory()  # itself, where the loader's threads have filled such
        return values.to(self.device, non_blocking=True)

    def _confidence(self, crops: Crops) -> Tensor | None:
        if "confidence" not in crops.maps:
            return None
        return self._to_device(crops.maps["confidence"]).float().div_(255)


def _digest(samples: Sequence[Sample]) -> str:
    """Return a short hash of which samples there are, in order."""
    names = "\n".join(f"{sample.shard.name} {sample.key}" for sample in samples)
    return hashlib.sha256(names.encode()).hexdigest()[:16]
