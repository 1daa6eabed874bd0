"""An encoder's features of images in place of the images: what is computed once, and used often.

Batches hold either; a network takes both, and begins behind its encoder where it gets features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What an encoder makes of N images."""

    levels: tuple[Tensor, ...]
    """(N, D, h, w) each, fine to coarse, best in channels-last."""
    size: tuple[int, int]
    """Height and width of the images in pixels."""

    def __len__(self) -> int:
        return self.levels[0].shape[0]

    @property
    def shape(self) -> torch.Size:
        """(N, 3, H, W): the shape of the images."""
        return torch.Size((len(self), 3, *self.size))

    @property
    def device(self) -> torch.device:
        """Where the features lie."""
        return self.levels[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the features."""
        return self.levels[0].dtype


View = Tensor | Encoded
"""Images (N, 3, H, W), normalised, or their features."""


def joined(views: Sequence[View]) -> View:
    """Return views one after the other along the batch; all images, or all features of one encoder.

    Raises TypeError where they are mixed.
    """
    images = [view for view in views if isinstance(view, Tensor)]
    if len(images) == len(views):
        return torch.cat(images)
    encoded = [view for view in views if isinstance(view, Encoded)]
    if len(encoded) < len(views):
        raise TypeError("images and features cannot be joined in one batch")
    levels = zip(*(view.levels for view in encoded), strict=True)
    return Encoded(levels=tuple(torch.cat(level) for level in levels), size=encoded[0].size)
