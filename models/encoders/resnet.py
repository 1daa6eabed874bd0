"""ResNet backbones made of torchvision's blocks, with torchvision's parameter names.

Beyond torchvision: features of every stage, the deep stem of the peers (three 3 x 3 convolutions;
their checkpoints load by name), multi-grid dilations, and the tap before a stage's last ReLU.
"""

from functools import partial
from typing import Any, Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1, conv3x3

from ...kernels.layers.residual import add_relu
from ..network import Encoder, initialize
from ..weights.names import Rules, translate
from .registry import ENCODERS

NAMES: Rules = (
    # OpenMMLab's ResNetV1c
    (r"^stem\.([0-6])\.(?=[a-z_]+$)", r"conv1.\1."),
    (r"^stem\.7\.", "bn1."),
    # Caffe's DeepLabv2 in the conversion by deeplab-pytorch
    (r"^layer1\.conv1\.conv\.", "conv1."),
    (r"^layer1\.conv1\.bn\.", "bn1."),
    (
        r"^layer([2-5])\.block(\d+)\.",
        lambda match: f"layer{int(match[1]) - 1}.{int(match[2]) - 1}.",
    ),
    (r"\.reduce\.(conv|bn)\.", r".\g<1>1."),
    (r"\.conv3x3\.(conv|bn)\.", r".\g<1>2."),
    (r"\.increase\.(conv|bn)\.", r".\g<1>3."),
    (r"\.shortcut\.conv\.", ".downsample.0."),
    (r"\.shortcut\.bn\.", ".downsample.1."),
    (r"^aspp\.c(\d)\.", r"classifier.convs.\1."),
    # the conversion by AdvSemiSeg, and DMT's names
    (r"^layer5\.conv2d_list\.(\d)\.", r"classifier.convs.\1."),
    (r"^classifier\.0\.convs\.", "classifier.convs."),
)
"""Names of other projects' ResNets; torchvision's, timm's and U2PL's are ours."""

Form = Literal["torchvision", "caffe"]


class Basic(BasicBlock):
    """A basic block whose output may have several readers, and whose input has two."""

    def residual(self, x: Tensor) -> Tensor:
        """Return what is added to the shortcut."""
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))

    def forward(self, x: Tensor, shortcut: Tensor | None = None, readers: int = 1) -> Any:
        """Return the block's output; with more `readers` a tuple of it (see `add_relu`).

        shortcut: x once more, as the shortcut reads it.
        """
        return _end(self, self.residual(x), x if shortcut is None else shortcut, readers)


class Bottle(Bottleneck):
    """A bottleneck whose output may have several readers, and whose input has two."""

    def forward(self, x: Tensor, shortcut: Tensor | None = None, readers: int = 1) -> Any:
        """Return the block's output; see `Basic`."""
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(residual)))))
        return _end(self, residual, x if shortcut is None else shortcut, readers)


def _end(block: Any, residual: Tensor, x: Tensor, readers: int) -> Any:
    shortcut = x if block.downsample is None else block.downsample(x)
    outputs = add_relu(residual, shortcut, readers)
    return outputs if readers > 1 else outputs[0]


class SumBlock(Basic):
    """A basic block that returns the residual sum before its last ReLU."""

    def forward(self, x: Tensor, shortcut: Tensor | None = None, readers: int = 1) -> Any:
        """Return the sum of shortcut and residual."""
        shortcut = x if shortcut is None else shortcut
        total = self.residual(x)
        return total + (shortcut if self.downsample is None else self.downsample(shortcut))


BLOCKS: dict[int, tuple[type[Basic] | type[Bottle], tuple[int, ...]]] = {
    18: (Basic, (2, 2, 2, 2)),
    34: (Basic, (3, 4, 6, 3)),
    50: (Bottle, (3, 4, 6, 3)),
    101: (Bottle, (3, 4, 23, 3)),
}


class ResNet(Encoder):
    """Return the outputs of stages 1 to 4 of a ResNet, at strides 4, 8, and up to `stride`.

    Args:
        depth: 18, 34, 50 or 101.
        stride: stride of the last stage: 32, 16 or 8; strides beyond it become dilations, the way
            of torchvision (the first block of a dilated stage keeps the previous dilation).
            18 and 34 have no dilated blocks, hence stride 32 only.
        stem_width: 0 for the 7 x 7 convolution; otherwise the width w of a deep stem w-w-2w
            (32 in ResNet-C, 64 in the deep-stem ResNet of U2PL, GTA-Seg and timm's `resnet101s`).
        multi_grid: factors on the dilations of the blocks of the last stage.
        preactivation_taps: return the sums before the last ReLU of each stage (18 and 34 only).
        zero_init_residual: start each residual branch at zero.
        form: where a bottleneck strides and dilates; see `set_form`.
    """

    imagenet_hint = "pass a file with the deep stem (of U2PL, OpenMMLab's v1c or timm's resnet101s)"
    licence = "BSD-3-Clause"
    form_given: bool | None = None
    """Whether the form was chosen by name (True), or is left to the weights (False); None: it is
    neither one's to choose."""
    stages = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))

    def __init__(
        self,
        depth: int,
        *,
        stride: int = 32,
        stem_width: int = 0,
        multi_grid: tuple[int, int, int] | None = None,
        preactivation_taps: bool = False,
        zero_init_residual: bool = False,
        form: Form = "torchvision",
    ) -> None:
        super().__init__()
        block, counts = BLOCKS[depth]
        if stride not in (8, 16, 32) or (block is Basic and stride != 32):
            allowed = "32" if block is Basic else "8, 16 or 32"
            raise ValueError(
                f"encoder stride {stride} does not exist for ResNet-{depth}; use {allowed}"
            )
        self.imagenet = "" if stem_width else f"ResNet{depth}_Weights.IMAGENET1K_V1"
        self._width = 2 * stem_width or 64
        self._dilation = 1
        self.preactivation_taps = preactivation_taps
        self.conv1 = _deep_stem(stem_width) if stem_width else nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(self._width)
        self.relu = nn.ReLU(inplace=True)
        # U2PL pools with ceil_mode, which agrees on its crops (513, 769) and would break
        # ceil(H/s) on others.
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._stage(block, 64, counts[0], stride=1)
        self.layer2 = self._stage(block, 128, counts[1], stride=2)
        self.layer3 = self._stage(block, 256, counts[2], stride=2, dilate=stride < 16)
        self.layer4 = self._stage(block, 512, counts[3], stride=2, dilate=stride < 32)
        self.channels = tuple(width * block.expansion for width in (64, 128, 256, 512))
        self.reductions = tuple(min(reach, stride) for reach in (4, 8, 16, 32))
        self.weight_file = self.imagenet
        if multi_grid is not None:
            _multiply_dilations(self.layer4, multi_grid)
        initialize(self)
        if zero_init_residual:
            self._zero_residuals()
        self.form: Form = "torchvision"
        if form != "torchvision":
            self.set_form(form)

    def set_form(self, form: Form) -> None:
        """Let the bottlenecks stride and dilate as those of torchvision, or as those of Caffe.

        torchvision: a block strides in its 3 x 3 convolution, and the first block of a dilated
        stage keeps the dilation before it. caffe (DeepLabv2's released models, the original
        ResNets): it strides in its first 1 x 1 convolution, and all blocks of a stage dilate alike.
        No parameter changes. Raises ValueError where blocks have no 1 x 1 convolution.
        """
        if form not in ("torchvision", "caffe"):
            raise ValueError(f"form must be 'torchvision' or 'caffe'; got {form!r}")
        before = 1
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            first, last = stage[0], stage[-1]
            if not isinstance(first, Bottleneck):
                raise ValueError(f"form {form} is one of bottlenecks: ResNet-50 and deeper")
            reduce, spatial = cast(nn.Conv2d, first.conv1), cast(nn.Conv2d, first.conv2)
            stride = max(reduce.stride, spatial.stride)
            whole = cast(nn.Conv2d, cast(Bottleneck, last).conv2).dilation[0]
            reduce.stride, spatial.stride = (
                (stride, (1, 1)) if form == "caffe" else ((1, 1), stride)
            )
            dilation = whole if form == "caffe" else before
            spatial.dilation = spatial.padding = (dilation, dilation)
            before = whole
        self.form = form

    def names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Know files of torchvision, timm, OpenMMLab, U2PL, and conversions from Caffe."""
        return {translate(key, NAMES): value for key, value in state.items()}

    def _stage(
        self,
        block: type[Basic] | type[Bottle],
        planes: int,
        count: int,
        *,
        stride: int,
        dilate: bool = False,
    ) -> nn.Sequential:
        """Return `count` residual blocks; the first changes width, stride and dilation."""
        first_dilation = self._dilation
        if dilate:
            self._dilation *= stride
            stride = 1
        width = planes * block.expansion
        shortcut = None
        if stride != 1 or self._width != width:
            shortcut = nn.Sequential(conv1x1(self._width, width, stride), nn.BatchNorm2d(width))
        kinds: list[type[Basic] | type[Bottle]] = [block] * count
        if self.preactivation_taps:
            kinds[-1] = SumBlock
        blocks = [kinds[0](self._width, planes, stride, shortcut, dilation=first_dilation)]
        blocks += [kind(width, planes, dilation=self._dilation) for kind in kinds[1:]]
        self._width = width
        return nn.Sequential(*blocks)

    def _zero_residuals(self) -> None:
        """Set the scale of the last batch norm of every block to zero."""
        for block in self.modules():
            if isinstance(block, BasicBlock | Bottleneck):
                last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
                nn.init.zeros_(cast(nn.BatchNorm2d, last).weight)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return four features, fine to coarse, of images (N,3,H,W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        # The shortcut reads a block's input, then its first convolution: backward comes so.
        read = (x, x)
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            *blocks, last = stage
            for block in blocks:
                read = block(read[1], read[0], readers=2)
            if self.preactivation_taps:
                feature = last(read[1], read[0])
                read = (F.relu(feature),) * 2
            elif stage is self.layer4:
                feature = last(read[1], read[0])
            else:
                feature, *read = last(read[1], read[0], readers=3)
            features.append(feature)
        return tuple(features)


def _deep_stem(width: int) -> nn.Sequential:
    """Return the first three convolutions of the deep stem; `bn1` and a ReLU follow."""
    return nn.Sequential(
        conv3x3(3, width, stride=2),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        conv3x3(width, width),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        conv3x3(width, 2 * width),
    )


def _multiply_dilations(stage: nn.Sequential, factors: tuple[int, int, int]) -> None:
    """Multiply the dilation of each bottleneck's 3 x 3 convolution, keeping its output size."""
    for bottleneck, factor in zip(stage, factors, strict=True):
        convolution = cast(nn.Conv2d, bottleneck.conv2)
        dilation = convolution.dilation[0] * factor
        convolution.dilation = (dilation, dilation)
        convolution.padding = (dilation, dilation)


STEMS = {"torchvision": 0, "deep32": 32, "deep64": 64}
"""Stem -> its width; see `ResNet`."""


def resnet(
    depth: int, *, output_stride: int = 32, stem: str = "torchvision", form: Form | None = None
) -> ResNet:
    """Return a ResNet with a stem of a name; arguments as those of `ResNet`, but form None, which
    leaves it to the weights."""
    if stem not in STEMS:
        raise ValueError(f"stem must be one of {', '.join(STEMS)}; got {stem!r}")
    encoder = ResNet(
        depth, stride=output_stride, stem_width=STEMS[stem], form=form or "torchvision"
    )
    encoder.form_given = form is not None if depth >= 50 else None
    return encoder


for _depth in BLOCKS:
    ENCODERS.add(f"rn{_depth}", partial(resnet, _depth))
