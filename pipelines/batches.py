"""What the streams yield: frozen batches of tensors on the target device.

Views are images; those of a stream of features are `Encoded`, which networks take in their place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..kernels.window import window_mask

if TYPE_CHECKING:
    from ..kernels import TPS


@dataclass(frozen=True, kw_only=True)
class LabeledBatch:
    """Weak views (a share of them perturbed, if asked) and their masks."""

    image: Tensor
    """(N, C, H, W) floating point, normalised, channels-last."""
    mask: Tensor
    """(N, H, W) uint8 class ids, IGNORE where there is no image; classification: (N, 1, 1)."""
    keys: tuple[str, ...]
    """Key of each sample in its shard."""
    confidence: Tensor | None = None
    """(N, H, W) float32 in [0, 1] where the mask is a pseudo-label, 0 outside; None otherwise."""


@dataclass(frozen=True, kw_only=True)
class SecondView:
    """One more strong view of the crops of a batch, perturbed independently of the first."""

    strong: Tensor
    """(N, C, H, W) floating point, normalised, channels-last."""
    valid: Tensor
    """(N, H, W) bool: its pixels whose source lies inside the window."""
    tps: TPS | None
    """The warp from weak to this view; None where it is not warped."""


@dataclass(frozen=True, kw_only=True)
class PairedBatch:
    """Weak and strong views of the same crops."""

    weak: Tensor
    """(N, C, H, W) floating point, normalised, channels-last."""
    strong: Tensor
    """(N, C, H, W) as weak."""
    window: Tensor
    """(N, 4) int32 [top, left, bottom, right): the part of the crop that shows the image."""
    valid: Tensor
    """(N, H, W) bool: pixels of the strong view whose source lies inside the window."""
    tps: TPS | None
    """The warp from weak to strong; None where the strong view is not warped."""
    keys: tuple[str, ...]
    """Key of each sample in its shard."""
    label: Tensor | None = None
    """(N, H, W) uint8 pseudo-labels under the weak geometry, IGNORE outside; None without them."""
    confidence: Tensor | None = None
    """(N, H, W) float32 in [0, 1] of the pseudo-labels, 0 outside; None without them."""
    second: SecondView | None = None
    """Another strong view of the same crops, where one was asked for."""
    known: Tensor | None = None
    """(N, H, W) bool: pixels of the weak view that a mask labels or ignores, so that they are no
    unlabeled ones (and not `valid` in strong views); None where no image is partly labeled."""

    def shown(self, *, padding: bool = False) -> Tensor:
        """Return the pixels of the weak view that are unlabeled ones, (N, H, W) bool: those that
        show an image (or, with `padding`, all), without the known ones."""
        size = (self.weak.shape[-2], self.weak.shape[-1])
        shown = window_mask(self.window, size)
        if padding:
            shown = torch.ones_like(shown)
        return shown if self.known is None else shown & ~self.known


@dataclass(frozen=True, kw_only=True)
class PlainBatch:
    """Whole images, for evaluation and labeling."""

    image: Tensor
    """(N, C, H, W) floating point, normalised, channels-last."""
    mask: Tensor | None
    """(N, H, W) uint8 class ids; classification: (N, 1, 1); None where the subset has no masks."""
    size: tuple[int, int]
    """Height and width of the images in pixels."""
    keys: tuple[str, ...]
    """Key of each sample in its shard."""
