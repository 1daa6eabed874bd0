"""ResNet backbones made of torchvision's blocks, with torchvision's parameter names.

Beyond torchvision: features of every stage, the deep stem of the peers (three 3 x 3 convolutions;
their checkpoints load by name), multi-grid dilations, and the tap before a stage's last ReLU.
"""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1, conv3x3

from .network import initialize

BLOCKS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


class SumBlock(BasicBlock):
    """A basic block that returns the residual sum before its last ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of shortcut and residual."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return residual + (x if self.downsample is None else self.downsample(x))


class ResNet(nn.Module):
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
    """

    imagenet_hint = "pass a file with the deep stem (of U2PL, OpenMMLab's v1c or timm's resnet101s)"
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
    ) -> None:
        super().__init__()
        block, counts = BLOCKS[depth]
        if stride not in (8, 16, 32) or (block is BasicBlock and stride != 32):
            allowed = "32" if block is BasicBlock else "8, 16 or 32"
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
        if multi_grid is not None:
            _multiply_dilations(self.layer4, multi_grid)
        initialize(self)
        if zero_init_residual:
            self._zero_residuals()

    def _stage(
        self,
        block: type[BasicBlock] | type[Bottleneck],
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
        kinds = [block] * count
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
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
            if self.preactivation_taps:
                x = F.relu(x)
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
