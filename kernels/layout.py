"""Memory formats that kernels accept without a copy."""

import torch
from torch import Tensor


def dense(map: Tensor) -> Tensor:
    """Return the map contiguous or, if it has four dimensions and is not, channels-last."""
    if map.is_contiguous() or map.ndim != 4:
        return map.contiguous()
    return map.contiguous(memory_format=torch.channels_last)
