"""CutMix with boxes instead of masks: one description mixes every map of a batch.

A pixel takes its value from the partner image where it lies in an odd number of its image's boxes,
else it keeps its own. A box that covers the whole crop therefore inverts the mask, and no mask is
ever stored: images, labels, confidences, logits and features follow the same few integers.

    mkd        MKD section 3.2 and its code: three boxes, each of a third of U(.25, .5) of the area,
               log-uniform aspect, XOR; the image keeps what they enclose, the rest comes from its
               predecessor in the batch
    gta        GTA-Seg's code: one box of half the area, taken from the successor; drawn for half
               of the batches
    britefury  French et al. 2020, as the one-way paper uses it: one box of half the area with
               log-uniform aspect, swapped within pairs (the last image of an odd batch stays)
    unimatch   UniMatch's code: for half of the images, each by itself, one box of U(.02, .4) of the
               area, its aspect h / w ~ U(.3, 1/.3), drawn again until it lies inside; image i takes
               from image B - 1 - i, as in UniMatch V2 (the middle one of an odd batch stays)

Moved per element: one read and one write, the floor of a copy.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dispatch import use_op
from ..nearest import centres
from ..transfer import moved
from ..upsample import stride_of
from .cutmix_triton import cutmix_op

__all__ = ["CutMixBoxes", "cutmix", "cutmix_boxes", "cutmix_reference"]

PRESETS = ("mkd", "gta", "britefury", "unimatch")


@dataclass(frozen=True, kw_only=True)
class CutMixBoxes:
    """What to take from whom.

    boxes: (N, K, 4) int32 [top, left, bottom, right), pixels of the full-resolution crop; an empty
    box does nothing.
    partner: (N,) int64, a permutation of the batch: the image that each one takes from.
    inverse: (N,) int64, its inverse: the image that takes from each one (what the gradient needs).
    size: (H, W) of the crop.
    """

    boxes: Tensor
    partner: Tensor
    inverse: Tensor
    size: tuple[int, int]

    @classmethod
    def of(cls, boxes: Tensor, partner: Tensor, size: tuple[int, int]) -> "CutMixBoxes":
        """Check shapes and permutation (on the host, so give CPU tensors), add the inverse."""
        batch = partner.shape[0]
        if boxes.ndim != 3 or boxes.shape[0] != batch or boxes.shape[2] != 4:
            raise ValueError(f"boxes must be ({batch}, K, 4); got {tuple(boxes.shape)}")
        if sorted(partner.tolist()) != list(range(batch)):
            raise ValueError(f"partner must be a permutation of the batch; got {partner.tolist()}")
        inverse = torch.argsort(partner)
        return cls(boxes=boxes.int(), partner=partner.long(), inverse=inverse, size=size)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "CutMixBoxes":
        """Return the same boxes on `device`."""
        parts = (self.boxes, self.partner, self.inverse)
        boxes, partner, inverse = moved(parts, device, non_blocking)
        return CutMixBoxes(boxes=boxes, partner=partner, inverse=inverse, size=self.size)

    def mask(self, stride: int = 1) -> Tensor:
        """Return (N, ceil(H/stride), ceil(W/stride)) bool, true where the partner shows.

        A cell of a coarser map follows its centre pixel (y * stride + stride // 2, the nearest
        neighbour under half-pixel centres), so that all maps of a batch are cut alike.
        """
        device = self.boxes.device
        rows = centres(self.size[0], stride, device)[:, None]
        columns = centres(self.size[1], stride, device)
        top, left, bottom, right = self.boxes[..., None, None].unbind(2)
        inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        return inside.sum(1) % 2 == 1


def cutmix_boxes(
    batch: int,
    size: tuple[int, int],
    *,
    preset: str = "mkd",
    probability: float | None = None,
    generator: torch.Generator | None = None,
) -> CutMixBoxes:
    """Draw the boxes of one batch on the CPU.

    With `probability` (default .5 for gta and unimatch, as published, else 1) the whole batch is
    mixed, otherwise all of its boxes are empty; unimatch decides for each image. Raises ValueError
    for an unknown preset or a size without pixels.
    """
    height, width = size
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}; got {preset!r}")
    if batch < 1 or height < 1 or width < 1:
        raise ValueError(f"batch and size must be positive; got {batch}, {size}")
    order = torch.arange(batch)
    if preset == "mkd":
        share = 0.25 + 0.25 * _uniform(generator, batch, 3)
        cut = _boxes_by_area(share, size, math.sqrt(1 / 3), generator)
        whole = torch.tensor([0, 0, height, width]).expand(batch, 1, 4)
        boxes, partner = torch.cat([whole, cut], 1), (order - 1) % batch
    elif preset == "gta":
        boxes, partner = _half_area_boxes(batch, size, generator), (order + 1) % batch
    elif preset == "unimatch":
        boxes, partner = _boxes_inside(batch, size, generator), order.flip(0)
    else:
        share = torch.full(((batch + 1) // 2, 1), 0.5)
        boxes = _boxes_by_area(share, size, 1.0, generator).repeat_interleave(2, 0)[:batch]
        partner = order ^ 1
        if batch % 2:
            partner[-1] = batch - 1
    half = preset in ("gta", "unimatch")
    chance = probability if probability is not None else (0.5 if half else 1.0)
    each = (batch, 1, 1) if preset == "unimatch" else ()
    drawn = torch.rand(each, generator=generator) < chance
    return CutMixBoxes.of(boxes * drawn, partner, size)


def cutmix_reference(map: Tensor, boxes: CutMixBoxes) -> Tensor:
    """Do what `cutmix` does in plain PyTorch: the definition, on any device."""
    mask = boxes.mask(stride_of(map, boxes.size))
    mask = mask if map.ndim == 3 else mask[:, None]
    return torch.where(mask, map[boxes.partner], map)


def cutmix(map: Tensor, boxes: CutMixBoxes) -> Tensor:
    """Mix a batch of maps by its boxes.

    `map` is (N, H, W) or (N, C, H, W) of any dtype and memory format, at full resolution or at an
    integer stride (ceil(H/s) x ceil(W/s)); the result has its dtype and format. The gradient goes
    where the values came from.

    Raises ValueError when the batch differs or the map's size is none of the crop's strides.
    """
    batch = boxes.partner.shape[0]
    if map.ndim not in (3, 4) or map.shape[0] != batch:
        raise ValueError(
            f"map must be ({batch}, H, W) or ({batch}, C, H, W) like the boxes; "
            f"got {tuple(map.shape)}"
        )
    stride_of(map, boxes.size)
    if not use_op(map, boxes.boxes, boxes.partner):
        return cutmix_reference(map, boxes)
    return cutmix_op(map, boxes.boxes, boxes.partner, boxes.inverse, list(boxes.size))


def _uniform(generator: torch.Generator | None, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _boxes_by_area(
    share: Tensor, size: tuple[int, int], factor: float, generator: torch.Generator | None
) -> Tensor:
    """Return boxes (N, K, 4) inside the crop: `share` (N, K) of its area, log-uniform aspect.

    `factor` scales the sides.
    """
    batch, count = share.shape
    height = torch.exp(_uniform(generator, batch, count) * torch.log(share))
    extent = torch.tensor(size, dtype=torch.float64)
    sides = torch.round(torch.stack([height, share / height], -1) * factor * extent)
    start = torch.round((extent - sides) * _uniform(generator, batch, count, 2))
    return torch.cat([start, start + sides], -1).long()


def _half_area_boxes(
    batch: int, size: tuple[int, int], generator: torch.Generator | None
) -> Tensor:
    """Return boxes (N, 1, 4) of half the area, the width uniform over integers in (W/2, W]."""
    height, width = size
    draw = _uniform(generator, batch, 3)
    least = width // 2 + 1
    wide = (least + (draw[:, 0] * (width - least)).floor()).clamp(max=width)
    tall = torch.round(height * width / 2 / wide).clamp(max=height)
    top = ((height - tall + 1) * draw[:, 1]).floor()
    left = ((width - wide + 1) * draw[:, 2]).floor()
    return torch.stack([top, left, top + tall, left + wide], -1).long()[:, None]


def _boxes_inside(batch: int, size: tuple[int, int], generator: torch.Generator | None) -> Tensor:
    """Return boxes (N, 1, 4) of U(.02, .4) of the area: aspect (relative to the crop's) and place
    are drawn again, for each image by itself, until the box lies inside the crop; its area stays.
    """
    height, width = size
    extent = torch.tensor(size, dtype=torch.float64)
    share = 0.02 + 0.38 * _uniform(generator, batch)
    boxes = torch.zeros(batch, 4, dtype=torch.float64)
    outside = torch.ones(batch, dtype=torch.bool)
    while outside.any():
        draw = _uniform(generator, batch, 3)
        aspect = 0.3 + (1 / 0.3 - 0.3) * draw[:, 0]
        sides = torch.stack([(share * aspect).sqrt(), (share / aspect).sqrt()], 1)
        sides, start = (sides * extent).floor(), (draw[:, 1:] * extent).floor()
        boxes = torch.where(outside[:, None], torch.cat([start, start + sides], 1), boxes)
        outside = (boxes[:, 2] > height) | (boxes[:, 3] > width)
    return boxes.long()[:, None]
