"""A batch of images of one size through a network, as the memory lets it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import torch

from .drawn import Labeled
from .image_files import Source
from .trained import TrainedNetwork

BYTES_PER_PIXEL = 2048
"""What a pixel takes on its way through a network, by a careful guess."""


def images_in_memory(device: torch.device, shape: tuple[int, ...]) -> int:
    """Return how many images of a shape (H, W, 3) the free memory holds by a careful guess."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free // (BYTES_PER_PIXEL * shape[0] * shape[1])


def label_batch(
    trained: TrainedNetwork,
    batch: list[tuple[Source, np.ndarray]],
    device: torch.device,
    dtype: torch.dtype,
    failed: Callable[[str], None],
) -> Iterator[Labeled]:
    """Label one batch, in halves where the memory is too small for it; nothing comes out of one
    that the network refuses."""
    crop = torch.from_numpy(np.stack([image for _, image in batch]))
    first, (height, width) = batch[0][0], crop.shape[1:3]
    try:
        label, confidence = trained.label(crop.to(device), dtype)
        levels = (confidence * 255).round().clamp(0, 255).to(torch.uint8)
        made = list(zip(batch, label.cpu().numpy(), levels.cpu().numpy(), strict=True))
    except ValueError as error:
        for source, _ in batch:
            failed(f"{source.shown} cannot be labeled: {error}")
        return
    except torch.OutOfMemoryError as error:
        if len(batch) == 1:
            raise RuntimeError(
                f"{first.shown} ({width}x{height} pixels) does not fit into the memory; use "
                "--evaluation.mode sliding, or --evaluation.bound"
            ) from error
        made = []
    if not made:  # outside of the handler, which holds the tensors of what failed
        half = len(batch) // 2
        for part in (batch[:half], batch[half:]):
            yield from label_batch(trained, part, device, dtype, failed)
    for (source, own), ids, level in made:
        yield Labeled(source.name, own, ids, level)
