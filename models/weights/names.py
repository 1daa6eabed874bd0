"""Parameter names of other projects' files, translated into this package's.

What all files share stands here; what belongs to an encoder, its `names` know. A table of names is
one of regular expressions.
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


DPT: Rules = (
    (r"^head\.projects\.", "decoder.project."),
    (r"^head\.resize_layers\.", "decoder.resize."),
    (r"^head\.scratch\.layer(\d)_rn\.", lambda found: f"decoder.adapt.{int(found[1]) - 1}."),
    (r"^head\.scratch\.refinenet(\d)\.", lambda found: f"decoder.fuse.{int(found[1]) - 1}."),
    (r"^(decoder\.fuse\.\d\.)resConfUnit1\.", r"\1level."),
    (r"^(decoder\.fuse\.\d\.)resConfUnit2\.", r"\1mixed."),
    (r"^(decoder\.fuse\.\d\.)out_conv\.", r"\1out."),
    (r"^head\.scratch\.output_conv\.0\.", "decoder.finish.0."),
    (r"^head\.scratch\.output_conv\.2\.", "classifier."),
)
"""Names of UniMatch V2's DPT, the same as MiDaS's and Depth Anything's but for the last layers."""
_UNUSED_UNIT = "decoder.fuse.3.level."
"""What the coarsest fusion of that code holds, and never uses: there is nothing to add to."""


def dpt_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state of UniMatch V2's DPT under this package's names; others as they are."""
    if not any(name.startswith("head.scratch.") for name in state):
        return state
    renamed = {translate(name, DPT): value for name, value in state.items()}
    return {name: v for name, v in renamed.items() if not name.startswith(_UNUSED_UNIT)}
