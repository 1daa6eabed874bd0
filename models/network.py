"""The one shape all networks have: backbone, decoder, classifier.

    image (N,3,H,W) -> encode -> features, fine to coarse -> decode -> feature -> classify -> logits

An architecture is a choice of these three modules, so what methods ask of a network (the feature
before the classifier, learning-rate groups, transfer cuts) is written once, here.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal, Protocol, cast

from torch import Tensor, nn


class Backbone(Protocol):
    """What a network asks of a backbone, a module that returns a tuple of features."""

    channels: tuple[int, ...]
    """Channels of the features it returns, fine to coarse."""
    stages: tuple[tuple[str, ...], ...]
    """Names of the children that make up layer 0 (the stem), 1, 2, 3 and 4."""
    imagenet: str
    """Torchvision's ImageNet weights for it, or nothing."""
    imagenet_hint: str
    """What to do where there are none."""


class SegmentationNetwork(nn.Module):
    """A backbone, a decoder and a classifier that map images to logits at a fixed output stride.

    `output_stride` s: logits of an image of H x W pixels are ceil(H/s) x ceil(W/s), whatever the
    size; a network that classifies whole images returns 1 x 1 logits and has `output_stride` 1,
    the stride between its logits and their one-pixel mask.
    `task`: whether the logits are of pixels or of whole images.
    `normalization`: name of the input normalisation its weights were trained with.
    `pretrained`: names of the parameters that were loaded from weights; the others are new.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        classifier: nn.Module,
        *,
        num_classes: int,
        output_stride: int,
        minimum_size: int = 16,
        task: Literal["segmentation", "classification"] = "segmentation",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.classifier = classifier
        self.num_classes = num_classes
        self.output_stride = output_stride
        self.minimum_size = minimum_size
        self.task = task
        self.name = ""
        self.normalization = "imagenet"
        self.pretrained: frozenset[str] = frozenset()

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the backbone's features, fine to coarse, of normalised images (N,3,H,W).

        Raises ValueError for images smaller than `minimum_size` pixels on a side.
        """
        height, width = image.shape[-2:]
        if height < self.minimum_size or width < self.minimum_size:
            least = self.minimum_size
            raise ValueError(
                f"image is {height} x {width} pixels; {self.name or 'this network'} needs at least "
                f"{least} x {least}: pad or resize it to {max(height, least)} x {max(width, least)}"
            )
        return self.backbone(image)

    def decode(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return the feature before the classifier, at the output stride."""
        return self.decoder(features)

    def classify(self, feature: Tensor) -> Tensor:
        """Return logits (N,C,h,w) of the feature before the classifier."""
        return self.classifier(feature)

    def forward(
        self,
        image: Tensor,
        return_feature: bool = False,
        change: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (N,C,ceil(H/s),ceil(W/s)), on demand with the feature they came from.

        Args:
            image: (N,3,H,W), normalised, best in channels-last; any float dtype under autocast.
            return_feature: return (logits, feature) instead of logits.
            change: what is done to the backbone's features before they are decoded: a perturbation,
                inside the pass whose gradients a distributed wrapper synchronises.
        """
        features = self.encode(image)
        feature = self.decode(features if change is None else change(features))
        logits = self.classify(feature)
        return (logits, feature) if return_feature else logits

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return all parameters by part, for learning rates: backbone, decoder, classifier."""
        parts = {"backbone": self.backbone, "decoder": self.decoder, "classifier": self.classifier}
        return {name: list(part.parameters()) for name, part in parts.items()}

    def origin_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return all parameters by origin: `pretrained` (loaded from weights) and `new`."""
        groups: dict[str, list[nn.Parameter]] = {"pretrained": [], "new": []}
        for name, parameter in self.named_parameters():
            groups["pretrained" if name in self.pretrained else "new"].append(parameter)
        return groups

    def transfer_layers(self) -> dict[str, dict[str, nn.Parameter]]:
        """Return all parameters, name to parameter, in the cuts of GTA-Seg's Table 10, in order.

        Keys: `layer0` (the stem) to `layer4` of the backbone, `decoder` (the layers that make
        features), `classifier` (the layers after their fusion, down to the logits). Names are those
        of `named_parameters`, so two networks of one architecture pair up by them.
        """
        stages = cast(Backbone, self.backbone).stages
        cuts = {
            f"layer{index}": _parameters_under(self, [f"backbone.{child}" for child in children])
            for index, children in enumerate(stages)
        }
        fusion = [f"decoder.{child}" for child in getattr(self.decoder, "fusion", ())]
        classifier = _parameters_under(self, [*fusion, "classifier"])
        decoder = _parameters_under(self, ["decoder"])
        cuts["decoder"] = {name: value for name, value in decoder.items() if name not in classifier}
        cuts["classifier"] = classifier
        return cuts


def _parameters_under(network: nn.Module, prefixes: list[str]) -> dict[str, nn.Parameter]:
    """Return the parameters whose names start with one of `prefixes` and a dot."""
    dotted = tuple(prefix + "." for prefix in prefixes)
    return {name: p for name, p in network.named_parameters() if name.startswith(dotted)}


def convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    """Yield the convolutions inside a module."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            yield child


def initialize(module: nn.Module) -> None:
    """Draw new convolutions from He's normal law by fan-out and set their biases to zero.

    The choice of torchvision's ResNet and of SwiftNet's decoder; batch norms start as the identity.
    The fan-out of a depthwise convolution is that of one group, as in TensorFlow and timm.
    """
    for convolution in convolutions(module):
        fan_out = convolution.out_channels * math.prod(convolution.kernel_size)
        nn.init.normal_(convolution.weight, std=math.sqrt(2 * convolution.groups / fan_out))
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())
