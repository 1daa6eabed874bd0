"""Parameter names of other projects' files, translated into this package's.

Torchvision, the deep-stem ResNets of the peers and timm use our names as they are; the rest
is a table of regular expressions per project.
"""

import re
from collections.abc import Callable

from torch import Tensor

WRAPPERS = r"^(?:module\.|_orig_mod\.)+"
"""What DistributedDataParallel and torch.compile put before names."""

_HEADS = (
    r"^(?:fc|head|classifier|aux_classifier|decode_head|auxiliary_head|decoder|auxor|aux)\.|"
    r"num_batches_tracked$"
)

Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

COMMON: Rules = (
    (WRAPPERS, ""),
    (r"^(?:Scale|base)\.", ""),  # wrappers of the multi-scale Caffe conversions
    (r"^encoder\.", "backbone."),  # U2PL, GTA-Seg
    (r"^backbone\.", ""),
)

RESNET: Rules = (
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

XCEPTION: Rules = (
    # SegmenTron, on which SimpleBaseline is built
    (r"^(conv|bn)([12])\.", lambda match: f"stem.{int(match[2]) - 1}.{match[1]}."),
    (r"^block(\d+)\.", lambda match: f"blocks.{int(match[1]) - 1}."),
    (r"^(blocks\.\d+)\.(conv|bn)\.", r"\1.shortcut.\2."),
    (r"\.sep_conv(\d)\.block\.", r".stack.conv\1."),
    (r"\.depthwise\.", ".conv_dw."),
    (r"\.bn_depth\.", ".bn_dw."),
    (r"\.pointwise\.", ".conv_pw."),
    (r"\.bn_point\.", ".bn_pw."),
)

CAFFE = r"layer5\.conv2d_list\.|aspp\.c0\.|layer1\.conv1\.conv\."
"""Names that tell a file converted from Caffe, whose images were BGR."""


def translate(name: str, rules: Rules) -> str:
    """Apply the rules to a name, one after the other."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def is_caffe(state: dict[str, Tensor]) -> bool:
    """Tell whether names are those of a Caffe conversion."""
    return any(re.search(CAFFE, name) for name in state)


def is_head(name: str) -> bool:
    """Tell whether a name belongs to a classifier or decoder, which may be left out."""
    return re.search(_HEADS, name) is not None
