"""Build a network by its name."""

from collections.abc import Callable
from functools import partial

import torch

from .deeplabv2 import deeplabv2
from .deeplabv3plus import deeplabv3plus, deeplabv3plus_xception65
from .network import SegmentationNetwork
from .swiftnet import swiftnet
from .wideresnet import wide_resnet

NETWORKS: dict[str, Callable[..., SegmentationNetwork]] = {
    "swiftnet-rn18": partial(swiftnet, 18),
    "swiftnet-rn34": partial(swiftnet, 34),
    "deeplabv2-rn101": partial(deeplabv2, 101),
    "deeplabv3plus-rn50": partial(deeplabv3plus, 50),
    "deeplabv3plus-rn101": partial(deeplabv3plus, 101),
    "deeplabv3plus-xception65": deeplabv3plus_xception65,
    "wrn-28-2": partial(wide_resnet, 28, 2),
}
"""Name -> builder(num_classes, **options)."""


def build_network(
    name: str, num_classes: int, weights: str = "none", **options: object
) -> SegmentationNetwork:
    """Build a network in channels-last memory format.

    Args:
        name: one of `NETWORKS`.
        num_classes: number of classes, at least 2.
        weights: "none": random weights, as the papers initialise them.
        options: options of the architecture's builder.

    Raises ValueError for unknown names or options.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2; got {num_classes}")
    if weights != "none":
        raise ValueError(f"weights must be 'none'; got {weights!r}")
    network = NETWORKS[name](num_classes=num_classes, **options)
    network.name = name
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
