"""A head of one's own: levels projected to one width, added at the finest one's size.

warpseg train supervised-synthetic-swiftnet18-tiny --plugin docs/examples/head.py
    --network.name adding-lite0 --network.options width=32 --data DATA --split NAME --out RUN
"""

import torch.nn.functional as F
from torch import Tensor, nn
from warpseg.models import HEADS, Encoder, Head


class Adding(nn.Module):
    """A 1 x 1 convolution of each level, their sum, batch norm and ReLU."""

    fusion = ("norm",)  # what GTA-Seg transfers with the classifier

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(level, width, 1, bias=False) for level in channels)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return (N,width,h,w) of features, fine to coarse."""
        size = features[0].shape[-2:]
        maps = [project(level) for project, level in zip(self.project, features, strict=True)]
        enlarged = [F.interpolate(level, size, mode="bilinear") for level in maps[1:]]
        return F.relu(self.norm(sum(enlarged, maps[0])))


@HEADS.register("adding")
def adding(encoder: Encoder, num_classes: int, *, width: int = 64) -> Head:
    """Return the head for any encoder; keyword arguments are options of `--network.options`."""
    decoder = Adding(encoder.channels, width)
    return Head(decoder, nn.Conv2d(width, num_classes, 1), encoder.reductions[0])
