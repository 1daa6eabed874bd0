"""Build a network by its name.

A name is one of `NETWORKS`, or HEAD-ENCODER with a head and an encoder of the registries; any
encoder of timm is `timm:NAME`. `swiftnet-lite0`, `dpt-dinov2-s14`, `deeplabv3plus-timm:resnet50`.
"""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch

from .encoders.registry import ENCODERS
from .encoders.timm_encoder import timm_encoder
from .first_layer import RGB, take_channels
from .heads.head import HEADS
from .network import SegmentationNetwork
from .norm import group_norms
from .papers import (
    deeplabv2,
    deeplabv3plus,
    deeplabv3plus_xception65,
    join,
    swiftnet,
    wide_resnet,
)
from .weights.load import load_weights

NETWORKS: dict[str, Callable[..., SegmentationNetwork]] = {
    "swiftnet-rn18": partial(swiftnet, 18),
    "swiftnet-rn34": partial(swiftnet, 34),
    "deeplabv2-rn101": partial(deeplabv2, 101),
    "deeplabv3plus-rn50": partial(deeplabv3plus, 50),
    "deeplabv3plus-rn101": partial(deeplabv3plus, 101),
    "deeplabv3plus-xception65": deeplabv3plus_xception65,
    "wrn-28-2": partial(wide_resnet, 28, 2),
}
"""The papers' networks: name -> builder(num_classes, **options)."""

HEAD_NORM = "head_norm"
"""An option that all networks have: the norms of the head."""
IN_CHANNELS = "in_channels"
"""Another one: channels of the images."""
TIMM = "timm:"
"""What stands before the name of one of timm's encoders."""


def build_network(
    name: str, num_classes: int, weights: str = "none", **options: object
) -> SegmentationNetwork:
    """Build a network in channels-last memory format.

    Args:
        name: one of `NETWORKS`, or HEAD-ENCODER.
        num_classes: number of classes, at least 2.
        weights: "none" (random, as the papers initialise), "imagenet", a name of torchvision's
            weights, or a path; see `load_weights`.
        options: options of the architecture's builder: the head's and the encoder's; and of all,
            `head_norm`: "batch", or "group" for group norms in place of the head's batch norms, and
            `in_channels`: channels of the images, 3 where not given (see `first_layer`).

    Raises ValueError for unknown names or options and for weights that do not fit.
    """
    build = NETWORKS[name] if name in NETWORKS else _assembly(name)
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2; got {num_classes}")
    norm = options.pop(HEAD_NORM, "batch")
    if norm not in ("batch", "group"):
        raise ValueError(f"head_norm must be 'batch' or 'group'; got {norm!r}")
    channels = options.pop(IN_CHANNELS, RGB)
    if not isinstance(channels, int):
        raise ValueError(f"{IN_CHANNELS} is a whole number; got {channels!r}")
    known = _options(build)
    for option in options:
        if option not in known:
            listed = ", ".join([*known, HEAD_NORM, IN_CHANNELS])
            raise ValueError(f"{name} has no option {option!r}; its options: {listed}")
    network = build(num_classes=num_classes, **options)
    network.name = name
    if norm == "group":
        network.decoder = group_norms(network.decoder)
        network.classifier = group_norms(network.classifier)
    if channels != RGB:
        network.first_weight = take_channels(network.backbone, channels)
        network.in_channels = channels
    if weights != "none":
        load_weights(network, weights)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def split_name(name: str) -> tuple[str, str]:
    """Return head and encoder of a name. Raise ValueError where there is no such head."""
    heads = [head for head in HEADS if name.startswith(head + "-")]
    if not heads:
        near = get_close_matches(name, NETWORKS, n=3)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise ValueError(
            f"no network {name!r}: {hint}choose from {', '.join(NETWORKS)}, or HEAD-ENCODER with "
            f"a head of {', '.join(HEADS)} and an encoder of {', '.join(ENCODERS)} or {TIMM}NAME"
        )
    head = max(heads, key=len)
    return head, name.removeprefix(head + "-")


def _assembly(name: str) -> Callable[..., SegmentationNetwork]:
    """Return the builder of a network HEAD-ENCODER."""
    head, encoder = split_name(name)
    if encoder.startswith(TIMM):
        build = partial(timm_encoder, encoder.removeprefix(TIMM))
    else:
        build = ENCODERS.find(encoder)
    return Assembly(name, HEADS[head], build)


class Assembly:
    """The builder of a network of a head and an encoder, whose options are those of both."""

    def __init__(self, name: str, head: Callable[..., Any], encoder: Callable[..., Any]) -> None:
        self.name, self.head, self.encoder = name, head, encoder
        self.head_options, self.encoder_options = _options(head), _options(encoder)

    def __call__(self, *, num_classes: int, **options: Any) -> SegmentationNetwork:
        """Build encoder, then head."""
        asked = {key: value for key, value in options.items() if key in self.encoder_options}
        chosen = {key: value for key, value in options.items() if key not in asked}
        stride = chosen.get("encoder_stride", self.head_options.get("encoder_stride"))
        if stride is not None and "output_stride" in self.encoder_options:
            asked.setdefault("output_stride", stride)
        encoder = self.encoder(**asked)
        return join(encoder, self.head(encoder, num_classes, **chosen), num_classes)


def _options(build: Callable[..., Any]) -> dict[str, Any]:
    """Return the keyword-only arguments of a builder, with their defaults."""
    if isinstance(build, Assembly):
        return build.head_options | build.encoder_options
    return {
        key: parameter.default
        for key, parameter in inspect.signature(build).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and key != "num_classes"
    }
