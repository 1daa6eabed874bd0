"""Build a network by its name."""

import inspect
from collections.abc import Callable
from functools import partial

import torch

from .deeplabv2 import deeplabv2
from .deeplabv3plus import deeplabv3plus, deeplabv3plus_xception65
from .network import SegmentationNetwork
from .swiftnet import swiftnet
from .weights import load_weights
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
        weights: "none" (random, as the papers initialise), "imagenet", a name of torchvision's
            weights, or a path; see `load_weights`.
        options: options of the architecture's builder.

    Raises ValueError for unknown names or options and for weights that do not fit.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2; got {num_classes}")
    builder = NETWORKS[name]
    known = [
        key
        for key, parameter in inspect.signature(builder).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and key != "num_classes"
    ]
    for option in options:
        if option not in known:
            listed = ", ".join(known) or "none"
            raise ValueError(f"{name} has no option {option!r}; its options: {listed}")
    network = builder(num_classes=num_classes, **options)
    network.name = name
    if weights != "none":
        load_weights(network, weights)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
