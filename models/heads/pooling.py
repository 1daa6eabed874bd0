"""The end of a classifier of whole images."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import global_average


class GlobalPooling(nn.Module):
    """Normalise the coarsest feature, ReLU, average over the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return (N,C,1,1)."""
        return global_average(F.relu(self.bn(features[-1])))
