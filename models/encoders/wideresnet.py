"""WRN-28-2 for classification of small images (CIFAR-10), as DMT and one-way consistency use it."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import conv1x1, conv3x3

from ..network import Encoder, initialize


class PreActivationBlock(nn.Module):
    """Two BN-ReLU-conv steps and a shortcut, which is a 1 x 1 convolution where widths change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.shortcut = None if inputs == outputs else conv1x1(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N,outputs,h,w); a projecting shortcut starts after the first ReLU."""
        active = F.relu(self.bn1(x))
        residual = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return residual + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(Encoder):
    """Return the outputs of three groups of pre-activation blocks, at strides 1, 2 and 4."""

    reductions = (1, 2, 4)
    minimum_size = 8
    imagenet_hint = "it trains from scratch, with weights none"
    stages = (("conv1",), ("group1",), ("group2",), ("group3",), ())

    def __init__(self, depth: int, factor: int) -> None:
        super().__init__()
        self.channels = (16 * factor, 32 * factor, 64 * factor)
        blocks = (depth - 4) // 6
        self.conv1 = conv3x3(3, 16)
        self.group1 = self._group(16, self.channels[0], blocks, 1)
        self.group2 = self._group(self.channels[0], self.channels[1], blocks, 2)
        self.group3 = self._group(self.channels[1], self.channels[2], blocks, 2)
        initialize(self)

    @staticmethod
    def _group(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
        """Return blocks of one width; the first one strides."""
        rest = [PreActivationBlock(outputs, outputs, 1) for _ in range(1, blocks)]
        return nn.Sequential(PreActivationBlock(inputs, outputs, stride), *rest)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return three features, fine to coarse, of images (N,3,H,W)."""
        first = self.group1(self.conv1(image))
        second = self.group2(first)
        return first, second, self.group3(second)
