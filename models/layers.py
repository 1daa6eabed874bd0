"""Building blocks that several networks share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.misc import Conv2dNormActivation


def conv_bn_relu(
    inputs: int, outputs: int, kernel_size: int, *, dilation: int = 1, bias: bool = False
) -> nn.Sequential:
    """Return convolution (same size), batch norm, ReLU."""
    return Conv2dNormActivation(inputs, outputs, kernel_size, dilation=dilation, bias=bias)


def bn_relu_conv(inputs: int, outputs: int, kernel_size: int) -> nn.Sequential:
    """Return batch norm, ReLU, convolution (same size, no bias): the pre-activation order."""
    convolution = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), convolution)


def separable_conv(inputs: int, outputs: int, *, dilation: int = 1) -> nn.Sequential:
    """Return a 3 x 3 depthwise and a 1 x 1 convolution, each with batch norm and ReLU."""
    return nn.Sequential(
        Conv2dNormActivation(inputs, inputs, 3, groups=inputs, dilation=dilation),
        Conv2dNormActivation(inputs, outputs, 1),
    )


def resize_like(feature: Tensor, target: Tensor) -> Tensor:
    """Interpolate (N,C,h,w) to the height and width of `target`, bilinear, half-pixel centres."""
    return F.interpolate(feature, size=target.shape[-2:], mode="bilinear", align_corners=False)


def global_average(feature: Tensor) -> Tensor:
    """Return the averages (N,C,1,1) of (N,C,h,w) over the image.

    Averaged with the channels last in order as well as in memory, so that the gradient, which
    PyTorch spreads in the order of dimensions, is laid out as the feature is.
    """
    return feature.permute(0, 2, 3, 1).flatten(1, 2).mean(1)[:, :, None, None]


def spread_like(feature: Tensor, target: Tensor) -> Tensor:
    """Repeat (N,C,1,1) over the height and width of `target`, channels-last.

    The layout of a repeated pixel is ambiguous, and one map in the other layout would turn round
    a whole concatenation.
    """
    spread = feature.expand(-1, -1, *target.shape[-2:])
    return spread.contiguous(memory_format=torch.channels_last)
