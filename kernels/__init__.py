"""Fused pixel operations on stride-s logits, each with its plain PyTorch reference."""

from .cutmix import CutMixBoxes, cutmix, cutmix_boxes, cutmix_reference
from .ema import ema_update, ema_update_reference

__all__ = [
    "CutMixBoxes",
    "cutmix",
    "cutmix_boxes",
    "cutmix_reference",
    "ema_update",
    "ema_update_reference",
]
