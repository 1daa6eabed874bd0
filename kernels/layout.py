"""Memory formats that kernels accept without a copy, and how large a map they can index."""

import torch
from torch import Tensor


def dense(map: Tensor) -> Tensor:
    """Return the map contiguous or, if it has four dimensions and is not, channels-last."""
    if map.is_contiguous() or map.ndim != 4:
        return map.contiguous()
    return map.contiguous(memory_format=torch.channels_last)


def check_indices(*numbers: int) -> None:
    """Refuse what kernels cannot number in 32 bits: elements of an image, programs of a launch.

    Raises ValueError.
    """
    if max(numbers) >= 2**31:
        raise ValueError(
            f"a map of {max(numbers)} elements an image is beyond the kernels' 32-bit indices, "
            f"{2**31 - 1}: use smaller crops or a coarser stride"
        )
