"""Xception-65 as DeepLabv3+ uses it ("modified aligned Xception"), stride 16.

Parameter names are those of timm's `xception65`, whose checkpoints therefore load as they are.
"""

from collections import OrderedDict

from torch import Tensor, nn

from ..network import Encoder, initialize
from ..weights.names import Rules, translate
from .registry import ENCODERS

NAMES: Rules = (
    (r"^(conv|bn)([12])\.", lambda match: f"stem.{int(match[2]) - 1}.{match[1]}."),
    (r"^block(\d+)\.", lambda match: f"blocks.{int(match[1]) - 1}."),
    (r"^(blocks\.\d+)\.(conv|bn)\.", r"\1.shortcut.\2."),
    (r"\.sep_conv(\d)\.block\.", r".stack.conv\1."),
    (r"\.depthwise\.", ".conv_dw."),
    (r"\.bn_depth\.", ".bn_dw."),
    (r"\.pointwise\.", ".conv_pw."),
    (r"\.bn_point\.", ".bn_pw."),
)
"""Names of SegmenTron, on which SimpleBaseline is built."""

EPSILON = 1e-3
"""Of the batch norms."""

BLOCKS: tuple[tuple[int, tuple[int, int, int], int, int], ...] = (
    (64, (128, 128, 128), 2, 1),
    (128, (256, 256, 256), 2, 1),
    (256, (728, 728, 728), 2, 1),
    *(((728, (728, 728, 728), 1, 1),) * 16),
    (728, (728, 1024, 1024), 1, 1),
    (1024, (1536, 1536, 2048), 1, 2),
)
"""Input width, output widths, stride and dilation; the exit's stride became a dilation."""

TAP = 1
"""Index of the block whose second convolution is the low-level feature."""


def _conv_bn(inputs: int, outputs: int, kernel_size: int, stride: int) -> OrderedDict:
    """Return a convolution that keeps ceil(size/stride), and a batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=False)
    return OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs, eps=EPSILON))


def _separable(
    inputs: int, outputs: int, stride: int, dilation: int, activate: bool
) -> nn.Sequential:
    """Return depthwise 3 x 3 and 1 x 1 convolution, with batch norms and, on demand, ReLUs."""
    depthwise = nn.Conv2d(inputs, inputs, 3, stride, dilation, dilation, groups=inputs, bias=False)
    layers = OrderedDict[str, nn.Module](
        conv_dw=depthwise, bn_dw=nn.BatchNorm2d(inputs, eps=EPSILON)
    )
    if activate:
        layers["act_dw"] = nn.ReLU(inplace=True)
    layers["conv_pw"] = nn.Conv2d(inputs, outputs, 1, bias=False)
    layers["bn_pw"] = nn.BatchNorm2d(outputs, eps=EPSILON)
    if activate:
        layers["act_pw"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


class XceptionBlock(nn.Module):
    """Three separable convolutions with a shortcut; the last block has none and other ReLUs."""

    def __init__(
        self, inputs: int, widths: tuple[int, int, int], stride: int, dilation: int, last: bool
    ) -> None:
        super().__init__()
        self.has_shortcut = not last
        self.shortcut = None
        if not last and (stride != 1 or widths[-1] != inputs):
            self.shortcut = nn.Sequential(_conv_bn(inputs, widths[-1], 1, stride))
        self.stack = nn.Sequential()
        for index, (before, width) in enumerate(zip((inputs, *widths), widths, strict=False), 1):
            if not last:
                self.stack.add_module(f"act{index}", nn.ReLU())
            step = stride if index == len(widths) else 1
            conv = _separable(before, width, step, dilation, activate=last)
            self.stack.add_module(f"conv{index}", conv)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output and the output of its second convolution."""
        second = self.stack[: -2 if self.has_shortcut else -1](x)
        out = self.stack[-2 if self.has_shortcut else -1 :](second)
        if self.has_shortcut:
            out = out + (x if self.shortcut is None else self.shortcut(x))
        return out, second


@ENCODERS.register("xception65")
class Xception65(Encoder):
    """Return a low-level feature (256 channels, stride 4) and the last one (2048, stride 16)."""

    stages = (
        ("stem",),
        ("blocks.0",),
        ("blocks.1",),
        tuple(f"blocks.{index}" for index in range(2, 19)),
        ("blocks.19", "blocks.20"),
    )
    channels = (256, 2048)
    reductions = (4, 16)
    normalization = "half"
    licence = "Apache-2.0"
    weight_file = "xception65.tf_in1k"
    imagenet_hint = "pass a file of timm's xception65.tf_in1k"

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Sequential(_conv_bn(3, 32, 3, 2) | {"act": nn.ReLU(inplace=True)}),
            nn.Sequential(_conv_bn(32, 64, 3, 1) | {"act": nn.ReLU(inplace=True)}),
        )
        self.blocks = nn.ModuleList(
            XceptionBlock(inputs, widths, stride, dilation, last=index == len(BLOCKS) - 1)
            for index, (inputs, widths, stride, dilation) in enumerate(BLOCKS)
        )
        initialize(self)

    def names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Know files of timm and of SegmenTron."""
        return {translate(key, NAMES): value for key, value in state.items()}

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the two features of images (N,3,H,W)."""
        x = self.stem(image)
        low_level = x
        for index, block in enumerate(self.blocks):
            x, second = block(x)
            if index == TAP:
                low_level = second
        return low_level, x
