"""The one shape all networks have: backbone, decoder, classifier.

    image (N,3,H,W) -> encode -> features, fine to coarse -> decode -> feature -> classify -> logits

An architecture is a choice of these three modules, so what methods ask of a network (the feature
before the classifier, learning-rate groups, transfer cuts) is written once, here.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..kernels.encoded import Encoded, View

Normalization = str | tuple[tuple[float, float, float], tuple[float, float, float]]
"""The name of an input normalisation, or mean and standard deviation of RGB in [0, 1]."""


class Encoder(nn.Module):
    """What a network asks of an encoder: a module that returns a tuple of features, fine to coarse.

    A subclass states `channels` and `reductions`; the rest has defaults. A module that is no
    `Encoder` will do, too, if it states its channels.
    """

    channels: tuple[int, ...]
    """Channels of the features."""
    reductions: tuple[int, ...] = ()
    """Strides of the features in pixels: a feature of an image of H rows has ceil(H/stride)."""
    multiple: int = 1
    """Images are padded below and on the right to multiples of it; features are cut back."""
    minimum_size: int = 16
    """Least height and width of images in pixels."""
    normalization: Normalization = "imagenet"
    """Input normalisation that its weights were, or are to be, trained with."""
    stages: tuple[tuple[str, ...], ...] = ()
    """Names of the parameters, or of the modules that hold them, of layer 0 (the stem), 1 to 4;
    what no layer names belongs to the first."""
    imagenet: str = ""
    """What `--network.weights imagenet` reads for it, or nothing."""
    imagenet_hint: str = "pass a file of its weights"
    """What to do where there is nothing."""
    licence: str = ""
    """Licence of its published weights."""
    weight_file: str = ""
    """Where its published weights are: the name of a file, of torchvision's weights, a package."""

    def names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a file's state under this encoder's names; what it does not know, as it is."""
        return state

    def leave_out(self, name: str) -> bool:
        """Tell whether a name of a file has, and needs, no place here: it is said, not refused."""
        return False

    def depth_of(self, name: str) -> int:
        """Return how deep a parameter lies, from 0 (the stem), for layer-wise learning rates."""
        for index, stage in reversed(list(enumerate(self.stages))):
            if any(name == part or name.startswith(part + ".") for part in stage):
                return index
        return 0

    @property
    def depth(self) -> int:
        """Number of layers that `depth_of` tells apart, the stem aside."""
        return max(len(self.stages) - 1, 0)


def trait(backbone: nn.Module, name: str) -> Any:
    """Return what a backbone states, or the default of `Encoder`."""
    return getattr(backbone, name, getattr(Encoder, name, None))


class SegmentationNetwork(nn.Module):
    """A backbone, a decoder and a classifier that map images to logits at a fixed output stride.

    `output_stride` s: logits of an image of H x W pixels are ceil(H/s) x ceil(W/s), whatever the
    size; a network that classifies whole images returns 1 x 1 logits and has `output_stride` 1,
    the stride between its logits and their one-pixel mask.
    `task`: whether the logits are of pixels or of whole images.
    `normalization`: the input normalisation that its weights were trained with.
    `pretrained`: names of the parameters that were loaded from weights; the others are new.
    `found`: options that its weights chose; a network that is built for its state needs them.
    `multiple`: images are padded to multiples of it, inside; logits are cut back.
    `in_channels`: channels of the images; where they are not three, `first_weight` names the weight
    of the backbone that sees them.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        classifier: nn.Module,
        *,
        num_classes: int,
        output_stride: int,
        minimum_size: int | None = None,
        multiple: int = 1,
        task: Literal["segmentation", "classification"] = "segmentation",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.classifier = classifier
        self.num_classes = num_classes
        self.output_stride = output_stride
        self.minimum_size = minimum_size or trait(backbone, "minimum_size")
        self.multiple = math.lcm(multiple, trait(backbone, "multiple"))
        self.task = task
        self.name = ""
        self.normalization: Normalization = trait(backbone, "normalization")
        self.pretrained: frozenset[str] = frozenset()
        self.found: dict[str, Any] = {}
        self.in_channels = 3
        self.first_weight = ""
        self.frozen = False

    def freeze_backbone(self) -> None:
        """Take the backbone out of training: no gradients, and evaluation mode for good.

        Its batch norms use running statistics, untouched, whatever the policy of a pass.
        """
        self.frozen = True
        self.backbone.requires_grad_(False)
        self.freeze_norms()
        self.backbone.eval()

    def freeze_norms(self) -> None:
        """Keep the running statistics of the backbone's batch norms as their weights have them, and
        use them in every pass, whatever its policy; scales and shifts learn."""
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm):
                cast(Any, module).frozen = True
                module.eval()

    def train(self, mode: bool = True) -> "SegmentationNetwork":
        """Set the mode of all modules but a frozen backbone's, or its frozen batch norms'."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        else:
            for module in self.backbone.modules():
                if getattr(module, "frozen", False):
                    module.eval()
        return self

    def encode(self, image: View) -> tuple[Tensor, ...]:
        """Return the backbone's features, fine to coarse, of normalised images (N,3,H,W); those of
        what is encoded already as they are.

        Raises ValueError for images smaller than `minimum_size` pixels on a side.
        """
        if isinstance(image, Encoded):
            return image.levels
        height, width = image.shape[-2:]
        if height < self.minimum_size or width < self.minimum_size:
            least = self.minimum_size
            raise ValueError(
                f"image is {height} x {width} pixels; {self.name or 'this network'} needs at least "
                f"{least} x {least}: pad or resize it to {max(height, least)} x {max(width, least)}"
            )
        if self.multiple == 1:
            return self.backbone(image)
        below, right = -height % self.multiple, -width % self.multiple
        if torch.compiler.is_exporting() or below or right:  # an export is of all sizes
            # With zeros, the mean colour.
            padded = F.pad(image, (0, right, 0, below))
            image = padded.contiguous(memory_format=torch.channels_last)
        features = self.backbone(image)
        if self.multiple > trait(self.backbone, "multiple"):
            return features  # the head wants them whole
        strides = trait(self.backbone, "reductions")
        return tuple(
            _cut(feature, (height, width), stride)
            for feature, stride in zip(features, strides, strict=True)
        )

    def decode(self, features: tuple[Tensor, ...], size: tuple[int, int] | None = None) -> Tensor:
        """Return the feature before the classifier, at the output stride.

        size: height and width of the image, to whose logits larger ones are cut.
        """
        feature = self.decoder(features)
        return feature if size is None else _cut(feature, size, self.output_stride)

    def classify(self, feature: Tensor) -> Tensor:
        """Return logits (N,C,h,w) of the feature before the classifier."""
        return self.classifier(feature)

    def forward(
        self,
        image: View,
        return_feature: bool = False,
        change: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (N,C,ceil(H/s),ceil(W/s)), on demand with the feature they came from.

        Args:
            image: (N,3,H,W), normalised, best in channels-last; any float dtype under autocast; or
                what this backbone made of such images before.
            return_feature: return (logits, feature) instead of logits.
            change: what is done to the backbone's features before they are decoded: a perturbation,
                inside the pass whose gradients a distributed wrapper synchronises.
        """
        size, features = (image.shape[-2], image.shape[-1]), self.encode(image)
        feature = self.decode(features if change is None else change(features), size)
        logits = _cut(self.classify(feature), size, self.output_stride)
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
        stages = trait(self.backbone, "stages") or ((),) * 5
        cuts = {
            f"layer{index}": _parameters_under(self, [f"backbone.{child}" for child in children])
            for index, children in enumerate(stages)
        }
        named = {name for cut in cuts.values() for name in cut}
        for name, parameter in self.backbone.named_parameters(prefix="backbone"):
            if name not in named:
                cuts["layer0"][name] = parameter
        fusion = [f"decoder.{child}" for child in getattr(self.decoder, "fusion", ())]
        classifier = _parameters_under(self, [*fusion, "classifier"])
        decoder = _parameters_under(self, ["decoder"])
        cuts["decoder"] = {name: value for name, value in decoder.items() if name not in classifier}
        cuts["classifier"] = classifier
        return cuts


def _parameters_under(network: nn.Module, prefixes: list[str]) -> dict[str, nn.Parameter]:
    """Return the parameters of the names in `prefixes`, and of those that go on with a dot."""
    dotted = tuple(prefix + "." for prefix in prefixes)
    return {name: p for name, p in network.named_parameters() if (name + ".").startswith(dotted)}


def _cut(plane: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Cut (N,C,h,w) to the ceil(H/stride) x ceil(W/stride) cells that an image covers."""
    height, width = ((length + stride - 1) // stride for length in size)
    if torch.compiler.is_exporting() and not isinstance(height + width, int):
        return plane.narrow(-2, 0, height).narrow(-1, 0, width)
    if plane.shape[-2] <= height and plane.shape[-1] <= width:
        return plane
    return plane[..., :height, :width].contiguous(memory_format=torch.channels_last)


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
