"""Whole images in order, for evaluation and labeling.

Decoded by Pillow whatever the loader of training, so that a score does not depend on what is
installed; a few threads decode faster than a network labels whole images.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ...kernels import normalize
from ...shards import Sample, Subset
from ...shards.images import DAMAGED
from ..batches import PlainBatch
from ..loaders.plan import damaged
from ..normalization import NormalizationSettings, normalization_of
from ..settings import LoaderSettings

_Decoded = tuple[np.ndarray, np.ndarray | None]


class PlainStream:
    """Each image of this rank once, in the order of the subset; can be iterated again.

    Images of equal size that follow each other are batched, `batch_size` at most.
    """

    def __init__(
        self,
        subset: Subset,
        *,
        normalization: NormalizationSettings,
        loader: LoaderSettings,
        batch_size: int,
        device: torch.device,
        rank: int,
        world_size: int,
    ) -> None:
        self._has_masks = subset.has_masks
        self._groups = _groups(subset.samples()[rank::world_size], batch_size)
        self._normalization, self._loader = normalization, loader
        self._device = device

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        return len(self._groups)

    def __iter__(self) -> Iterator[PlainBatch]:
        """Decode ahead in threads and yield the batches; see `plain` for what is raised."""
        groups = iter(self._groups)
        with ThreadPoolExecutor(self._loader.num_threads, "warpseg-decode") as pool:
            running: deque[tuple[list[Sample], list]] = deque()
            try:
                while True:
                    for group in groups:
                        running.append((group, [pool.submit(self._decode, s) for s in group]))
                        if len(running) > self._loader.prefetch:
                            break
                    if not running:
                        return
                    group, tasks = running.popleft()
                    yield self._batch(group, [task.result() for task in tasks])
            finally:
                for _, tasks in running:
                    for task in tasks:
                        task.cancel()

    def _decode(self, sample: Sample) -> _Decoded:
        try:
            return sample.read_image(), sample.read_mask() if self._has_masks else None
        except DAMAGED as error:
            raise damaged(sample, error) from error

    def _batch(self, group: list[Sample], decoded: list[_Decoded]) -> PlainBatch:
        pixels = self._to_device(np.stack([image for image, _ in decoded]))
        masks = [mask for _, mask in decoded if mask is not None]
        look = self._normalization
        return PlainBatch(
            image=normalize(pixels, look.mean, look.std),
            mask=self._to_device(np.stack(masks)) if masks else None,
            size=group[0].size,
            keys=tuple(sample.key for sample in group),
        )

    def _to_device(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values)
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)


def plain(
    subset: Subset,
    *,
    normalization: NormalizationSettings | str = "imagenet",
    loader: LoaderSettings | None = None,
    batch_size: int = 1,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
) -> PlainStream:
    """Open the whole images of a subset, each once over all ranks, with masks where it has them.

    batch_size: at most so many images of equal size at once. Iterating raises ValueError naming
    shard, key and source of a sample that cannot be decoded.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more; got {batch_size}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in [0, {world_size}); got {rank}")
    return PlainStream(
        subset,
        normalization=normalization_of(normalization),
        loader=loader or LoaderSettings(),
        batch_size=batch_size,
        device=torch.device(device),
        rank=rank,
        world_size=world_size,
    )


def _groups(samples: list[Sample], batch_size: int) -> list[list[Sample]]:
    groups: list[list[Sample]] = []
    for sample in samples:
        if groups and len(groups[-1]) < batch_size and groups[-1][-1].size == sample.size:
            groups[-1].append(sample)
        else:
            groups.append([sample])
    return groups
