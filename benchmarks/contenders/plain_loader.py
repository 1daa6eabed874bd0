"""The batches of a recipe by torch's DataLoader and Pillow, for the plain step.

Worker processes decode, scale, pad, crop and flip; the device perturbs and normalises in plain
PyTorch. Scale is U(.5, 2), the field's most frequent.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ...kernels import TPS, StrongView, sample_photometric, sample_tps, strong_view_reference
from ...pipelines.batches import LabeledBatch, PairedBatch, SecondView
from ...shards import Dataset
from ...trainers.engine.settings import RunSettings
from ...trainers.engine.streams import Batches, StreamSpec, open_subset
from .peers import PREFETCH, peer_loader, pil_crop


class PlainLoader:
    """An endless iterator over batches of a method's streams."""

    WORKERS: int | None = None
    """worker processes of each stream; as many as our loader has threads when not given"""

    def __init__(
        self,
        specs: dict[str, StreamSpec],
        dataset: Dataset,
        split: str | None,
        settings: RunSettings,
        device: torch.device,
    ) -> None:
        height, width = settings.geometry.crop_size
        if height != width:
            raise ValueError(f"the plain loader makes square crops; got {height} x {width}")
        self.specs, self.settings, self.device = specs, settings, device
        workers = settings.loader.num_threads if self.WORKERS is None else self.WORKERS
        self.items: dict[str, Iterator[Any]] = {}
        self._ready = PREFETCH * workers
        self._pids: list[Callable[[], list[int]]] = []
        for name, spec in specs.items():
            samples = open_subset(dataset, spec.subset, split).samples()
            self.items[name], pids = peer_loader(
                samples,
                height,
                pil_crop,
                batch_size=spec.batch_size,
                workers=workers,
                pinned=device.type == "cuda",
            )
            self._pids.append(pids)

    def __iter__(self) -> Iterator[Batches]:
        return self

    def __next__(self) -> Batches:
        return {
            name: self._batch(spec, *next(self.items[name])) for name, spec in self.specs.items()
        }

    def drain(self) -> None:
        """Take the batches that lie ready."""
        for items in self.items.values():
            for _ in islice(items, self._ready):
                pass

    def pids(self) -> list[int]:
        """Return the ids of the worker processes."""
        return [pid for pids in self._pids for pid in pids()]

    def _batch(self, spec: StreamSpec, image: Tensor, mask: Tensor) -> Any:
        image, mask = (part.to(self.device, non_blocking=True) for part in (image, mask))
        count, size = len(image), self.settings.geometry.crop_size
        look = self.settings.normalization
        keys = ("",) * count
        if spec.kind == "labeled":
            view = strong_view_reference(image, mean=look.mean, std=look.std)
            return LabeledBatch(image=view.strong, mask=mask, keys=keys)
        window = torch.tensor([[0, 0, *size]] * count, dtype=torch.int32)
        views, tps = self._view(image)
        second = None
        if spec.second_view:
            more, warped = self._view(image)
            second = SecondView(strong=more.strong, valid=more.valid, tps=warped)
        assert views.weak is not None
        return PairedBatch(
            weak=views.weak,
            strong=views.strong,
            window=window.to(self.device, non_blocking=True),
            valid=views.valid,
            tps=tps,
            keys=keys,
            second=second,
        )

    def _view(self, image: Tensor) -> tuple[StrongView, TPS | None]:
        """Perturb crops by the views that have a kernel; by none for the others."""
        count, size = len(image), self.settings.geometry.crop_size
        strong, look = self.settings.strong_view(), self.settings.normalization
        changed = sample_photometric(count, strength=strong.photometric_strength)
        tps = sample_tps(count, size, sigma=strong.tps_sigma, preset=strong.tps)
        tps = tps.to(self.device, non_blocking=True) if strong.warped else None
        views = strong_view_reference(
            image,
            photometric=changed.to(self.device, non_blocking=True) if strong.photometric else None,
            tps=tps,
            mean=look.mean,
            std=look.std,
            with_weak=True,
        )
        return views, tps
