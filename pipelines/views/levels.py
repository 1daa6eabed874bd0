"""Changes of colour levels by tables of 256 entries per channel: equalize and solarize.

Both are those of Pillow and torchvision. The tables stay on the device, so nothing waits for them.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ...kernels.window import window_mask

Levels = Literal["kept", "equalize", "solarize"]
"""What becomes of the levels of a crop: nothing, equal shares of all levels, or bright inverted."""

SOLARIZE_FROM = 128
"""Least level that solarize inverts."""


def change_levels(crop: Tensor, changes: Sequence[Levels], window: Tensor) -> Tensor:
    """Change the levels of crops (N, H, W, 3) uint8, each by its own name; the crop if none does.

    window: (N, 4) as in PairedBatch; pixels outside count for no histogram.
    """
    chosen = [row for row, change in enumerate(changes) if change != "kept"]
    if not chosen:
        return crop
    inside = window_mask(window, (crop.shape[1], crop.shape[2]))
    changed = crop.clone()
    for row in chosen:
        index = crop[row].int() + 256 * torch.arange(3, dtype=torch.int32, device=crop.device)
        if changes[row] == "equalize":
            table = equalizing_table(index, inside[row])
        else:
            table = _solarizing_table(crop.device)
        changed[row] = table.flatten()[index]
    return changed


def equalizing_table(index: Tensor, inside: Tensor) -> Tensor:
    """Return the table (3, 256) uint8 that spreads the levels of each channel evenly.

    index: (H, W, 3) integer, level + 256 * channel. inside: (H, W) bool, the pixels that count. A
    channel of a single level, or of fewer than 256 pixels apart from its brightest ones, is kept.
    """
    counts = torch.zeros(3 * 256, dtype=torch.int64, device=index.device)
    weights = inside[..., None].expand_as(index).flatten().long()
    counts = counts.index_add(0, index.flatten(), weights).view(3, 256)
    level = torch.arange(256, device=index.device)
    brightest = (level * (counts > 0)).amax(1, keepdim=True)
    step = (counts.sum(1, keepdim=True) - counts.gather(1, brightest)) // 255
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, table, level).to(torch.uint8)


def _solarizing_table(device: torch.device) -> Tensor:
    level = torch.arange(256, device=device)
    return torch.where(level < SOLARIZE_FROM, level, 255 - level).to(torch.uint8).expand(3, 256)
