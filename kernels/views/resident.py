"""The resident cache: images in flat buffers, plans of crops, and the crops cut from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import IGNORE
from ..transfer import moved

__all__ = ["CropPlan", "Crops", "ResidentImages"]


@dataclass(frozen=True, kw_only=True)
class ResidentImages:
    """Images of various sizes in flat buffers on one device.

    pixels: (total, 3) uint8 RGB, images one after another, row by row. offset: (I,) int64, first
    row of each image in `pixels`. size: (I, 2) int32 height and width. mask: (total,) uint8 class
    ids or None. confidence: (total,) uint8 or floating point or None.
    """

    pixels: Tensor
    offset: Tensor
    size: Tensor
    mask: Tensor | None = None
    confidence: Tensor | None = None

    @classmethod
    def allocate(
        cls,
        sizes: Sequence[tuple[int, int]],
        device: torch.device | str,
        *,
        masks: bool = True,
        confidence: torch.dtype | None = None,
    ) -> "ResidentImages":
        """Reserve room for images of these (height, width); the caller writes them into it.

        Until then the pixels are black, the masks IGNORE and the confidences 0.
        """
        size = torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2)
        ends = size.prod(1).cumsum(0)
        total = int(ends[-1]) if len(sizes) else 0
        return cls(
            pixels=torch.zeros(total, 3, dtype=torch.uint8, device=device),
            offset=(ends - size.prod(1)).to(device),
            size=size.int().to(device),
            mask=torch.full((total,), IGNORE, dtype=torch.uint8, device=device) if masks else None,
            confidence=None
            if confidence is None
            else torch.zeros(total, dtype=confidence, device=device),
        )


@dataclass(frozen=True, kw_only=True)
class CropPlan:
    """Which part of which image each crop shows; pairs are (vertical, horizontal) in pixels.

    index: (N,) integer, position of the image; must be one of the cache's (not checked: that would
    wait for the device). scaled: (N, 2) int32, size of the image after scaling, at least 1; twice
    its product with the source's size must stay below 2^31. origin: (N, 2) int32, the crop's first
    pixel in the scaled image. flip: (N,) bool. size: (H, W) of the crops.
    """

    index: Tensor
    scaled: Tensor
    origin: Tensor
    flip: Tensor
    size: tuple[int, int]

    def __post_init__(self) -> None:
        batch = self.index.shape[0]
        parts = (self.index, self.scaled, self.origin, self.flip)
        if [part.shape for part in parts] != [(batch,), (batch, 2), (batch, 2), (batch,)]:
            raise ValueError(
                "a crop plan must be index (N,), scaled (N, 2), origin (N, 2), flip (N,); got "
                f"{[tuple(part.shape) for part in parts]}"
            )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "CropPlan":
        """Return the same plan on `device`."""
        parts = (self.index, self.scaled, self.origin, self.flip)
        index, scaled, origin, flip = moved(parts, device, non_blocking)
        return CropPlan(index=index, scaled=scaled, origin=origin, flip=flip, size=self.size)

    @property
    def window(self) -> Tensor:
        """(N, 4) int32 [top, left, bottom, right): the part of each crop that shows the image."""
        (top, bottom), (left, right) = (self._shown(axis) for axis in (0, 1))
        mirrored_left, mirrored_right = self.size[1] - right, self.size[1] - left
        left = torch.where(self.flip, mirrored_left, left)
        right = torch.where(self.flip, mirrored_right, right)
        return torch.stack([top, left, bottom, right], 1).int()

    def _shown(self, axis: int) -> tuple[Tensor, Tensor]:
        """Return the first pixel of each crop's axis that shows the image, and that after them."""
        origin, scaled, extent = self.origin[:, axis], self.scaled[:, axis], self.size[axis]
        return (-origin).clamp(0, extent), (scaled - origin).clamp(0, extent)


@dataclass(frozen=True, kw_only=True)
class Crops:
    """image: (N, H, W, 3) uint8. mask: (N, H, W) uint8, IGNORE outside the window, or None.

    confidence: (N, H, W) of the cache's dtype, 0 outside, or None. window: the plan's.
    """

    image: Tensor
    mask: Tensor | None
    confidence: Tensor | None
    window: Tensor
