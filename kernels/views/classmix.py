"""ClassMix: the pixels of half of an image's classes on top of another image.

    y_i = the labels of image i,  C_i classes of them;  floor(C_i / 2) of these at random are kept
    mixed_i = image_i where y_i is one of them, image_{i + 1 mod B} elsewhere

(Olsson et al. 2021.) The masks serve wherever CutMix's boxes do: `mix` takes either. What no class
has (IGNORE: padding) comes from the partner. Moved per element: two reads and one write.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ... import IGNORE
from ..nearest import at_centres
from ..upsample import stride_of
from .cutmix import CutMixBoxes, cutmix


@dataclass(frozen=True, kw_only=True)
class ClassMasks:
    """What to take from whom, as `CutMixBoxes`.

    taken: (N, H, W) bool, full resolution: true where the partner shows. partner: (N,) int64, a
    permutation of the batch; inverse: its inverse. size: (H, W) of the crop.
    """

    taken: Tensor
    partner: Tensor
    inverse: Tensor
    size: tuple[int, int]

    def mask(self, stride: int = 1) -> Tensor:
        """Return (N, ceil(H/stride), ceil(W/stride)) bool, true where the partner shows; a cell of
        a coarser map follows its centre pixel."""
        return at_centres(self.taken, stride)


Mixing = CutMixBoxes | ClassMasks
"""How the images of a batch, and all that goes with them, are mixed."""


@torch.no_grad()
def class_masks(label: Tensor, num_classes: int, *, probability: float | None = None) -> ClassMasks:
    """Draw which classes of each image stay: half of those it has, rounded down.

    `label` (N, H, W) of integers, IGNORE where there is none. With `probability` the whole batch is
    mixed, otherwise all of its images stay as they are. Drawn by the generator of the label's
    device, without a host sync.
    """
    batch, height, width = label.shape
    device = label.device
    index = torch.where(label == IGNORE, num_classes, label.long())
    present = torch.zeros(batch, num_classes + 1, dtype=torch.bool, device=device)
    present = present.scatter_(1, index.flatten(1), True)[:, :num_classes]
    # Classes that an image lacks come last, so the first half of the present ones stays.
    order = torch.rand(batch, num_classes, device=device).masked_fill(~present, 2.0).argsort(1)
    place = torch.arange(num_classes, device=device).expand(batch, -1)
    rank = torch.empty_like(order).scatter_(1, order, place)
    kept = rank < present.sum(1, keepdim=True) // 2
    kept = torch.cat([kept, kept.new_zeros(batch, 1)], 1)
    taken = ~kept.gather(1, index.flatten(1)).view(batch, height, width)
    if probability is not None:
        taken = taken & (torch.rand((), device=device) < probability)
    partner = (torch.arange(batch, device=device) + 1) % batch
    return ClassMasks(taken=taken, partner=partner, inverse=partner.argsort(), size=(height, width))


def mix(map: Tensor, mixing: Mixing) -> Tensor:
    """Mix a batch of maps (N, H, W) or (N, C, H, W), at full resolution or an integer stride.

    The gradient goes where the values came from. Raises ValueError when the batch differs or the
    map's size is none of the crop's strides.
    """
    if isinstance(mixing, CutMixBoxes):
        return cutmix(map, mixing)
    if len(map) != len(mixing.partner):
        raise ValueError(f"{len(map)} maps do not fit the masks of {len(mixing.partner)} images")
    taken = mixing.mask(stride_of(map, mixing.size))
    return torch.where(taken if map.ndim == 3 else taken[:, None], map[mixing.partner], map)
