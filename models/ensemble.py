"""Several networks asked as one."""

import math
from collections.abc import Iterable
from functools import reduce
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..kernels import upsample


class Ensemble(nn.Module):
    """The mean of what networks of one architecture say: of their probabilities at each pixel.

    The probabilities are those at the image's own size, so logits are upsampled before they become
    such. It holds the networks themselves, no copies.
    """

    output_stride = 1

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(networks)

    def forward(self, image: Tensor) -> Tensor:
        """Return the log of mean probabilities, float32 (N, C, H, W), of images (N, 3, H, W).

        (N, C, 1, 1) where the networks classify whole images.
        """
        said = [_log_prob(member, image) for member in self.members]
        return reduce(torch.logaddexp, said) - math.log(len(said))


def _log_prob(network: nn.Module, image: Tensor) -> Tensor:
    logits, stride = network(image).float(), cast(Any, network).output_stride
    height, width = (
        min(stride * length, side)
        for length, side in zip(logits.shape[-2:], image.shape[-2:], strict=True)
    )
    return upsample(logits, (height, width)).log_softmax(1)
