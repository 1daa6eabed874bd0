"""DINOv2 and DINOv3: vision transformers and ConvNeXts with the names of their files.

Their weights are files that one fetches elsewhere: Meta's (.pth), timm's or Hugging Face's
(.safetensors). DINOv2 is Apache-2.0. DINOv3's licence allows commercial use, forbids military use,
and binds whoever passes weights, or what was trained from them, on.

Source of the names: dinov2 and dinov3 (Meta), timm, and transformers.
"""

import re
from functools import partial

import torch
from torch import Tensor

from ..network import Encoder
from ..weights.names import Rules, translate
from .registry import ENCODERS
from .timm_encoder import TimmEncoder
from .vit import VitEncoder, prefixed

SIZES = {"s": "small", "b": "base", "l": "large"}

NAMES: Rules = (
    (r"^(?:dinov2_with_registers|dinov2|dinov3_vit|dinov3|vit)\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^(?:embeddings\.register_tokens|register_tokens|storage_tokens)$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
    (r"^(?:model\.)?(?:encoder\.)?layer\.(\d+)\.", r"blocks.\1."),
    (
        r"\.attention\.attention\.(query|key|value)\.",
        lambda match: f".attn.{match[1][0]}.",
    ),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.(?:w1|gate_proj)\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.(?:w3|down_proj)\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
)
"""Meta's names and Hugging Face's become timm's of DINOv2; `_timm` does what is left."""

LEFT_OUT = re.compile(
    r"(?:^|\.)(?:mask_token|rope_embed\.periods|bias_mask|k_bias|qkv\.bias|norms\.\d\..*)$|"
    r"(?:^|\.)local_cls_norm\.|(?:^|\.)head\.norm\."
)
"""Names of files that have no place here, and need none."""


def dino_names(state: dict[str, Tensor], own: set[str]) -> dict[str, Tensor]:
    """Return a file of DINOv2 or DINOv3, of whatever project, under timm's names.

    own: timm's names of the network that is to be loaded.

    Raises ValueError for biases of queries and values that the network would drop.
    """
    renamed = {translate(key, NAMES): value for key, value in state.items()}
    gated = any(".mlp.fc1_g." in key for key in renamed)
    renamed = {
        key.replace(".mlp.up_proj.", ".mlp.fc1_x." if gated else ".mlp.fc1."): value
        for key, value in renamed.items()
    }
    _join_attention(renamed)
    if "blocks.0.gamma_1" in own:
        renamed = {
            re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", key): v for key, v in renamed.items()
        }
        _split_bias(renamed, own)
    if "reg_token" in own and "pos_embed" in own:
        table = renamed.get("pos_embed")
        # timm has no position for the class token where there are registers: it is added to it.
        if table is not None and "cls_token" in renamed and table.shape[1] % 2 == 0:
            renamed["cls_token"] = renamed["cls_token"] + table[:, :1]
            renamed["pos_embed"] = table[:, 1:]
    return renamed


def _join_attention(state: dict[str, Tensor]) -> None:
    """Put queries, keys and values, in place, below each other; a bias that is missing is zero."""
    for key in [key for key in state if key.endswith(".attn.q.weight")]:
        start = key.removesuffix("q.weight")
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{start}{part}.{kind}", None) for part in "qkv"]
            known = [part for part in parts if part is not None]
            if known:
                whole = [torch.zeros_like(known[0]) if p is None else p for p in parts]
                state[f"{start}qkv.{kind}"] = torch.cat(whole)


def _split_bias(state: dict[str, Tensor], own: set[str]) -> None:
    """Give DINOv3's biases of queries and values, in place, the names of timm; keys have none."""
    for key in [key for key in state if key.endswith(".attn.qkv.bias")]:
        start = key.removesuffix("qkv.bias")
        query, _, value = state[key].chunk(3)
        if f"{start}q_bias" in own:
            state[f"{start}q_bias"], state[f"{start}v_bias"] = query, value
            continue
        lost = any(part.isfinite().all() and part.any() for part in (query, value))
        if lost:
            raise ValueError(
                f"the file has biases of queries and values ({key}), which this network would "
                "drop: build it with the option qkv_bias=true"
            )
    lost = [key for key in state if key.endswith(("q_bias", "v_bias")) and key not in own]
    if any(state[key].any() for key in lost):
        raise ValueError(
            f"the file has biases of queries and values ({lost[0]}), which this network would "
            "drop: build it with the option qkv_bias=true"
        )


class DinoEncoder(VitEncoder):
    """A vision transformer of DINOv2 or DINOv3, which knows the files of all projects."""

    def names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Know files of Meta, timm and Hugging Face. Raises ValueError as `dino_names`."""
        if state.keys() <= set(self.state_dict()):
            return state
        plain = {key.removeprefix("model."): value for key, value in state.items()}
        own = {key.removeprefix("model.") for key in self.state_dict()}
        return prefixed(self, dino_names(plain, own))

    def leave_out(self, name: str) -> bool:
        """Leave out what only pretraining used, and biases that are zero."""
        return LEFT_OUT.search(name) is not None


class DinoConvNeXt(TimmEncoder):
    """A ConvNeXt of DINOv3, without its final norm."""

    def leave_out(self, name: str) -> bool:
        """Leave out the norms behind the last stage."""
        return LEFT_OUT.search(name) is not None


def dinov2(
    size: str, *, registers: bool = False, drop_path: float = 0.0, checkpointing: bool = False
) -> DinoEncoder:
    """Return a DINOv2 of patches of 14 pixels.

    Args:
        size: "s", "b" or "l".
        registers: with the four register tokens; the file of weights must have them, too.
        drop_path: probability of leaving out the deepest residual branch.
        checkpointing: compute activations again in the backward pass, for less memory.
    """
    word = "_reg4" if registers else ""
    encoder = DinoEncoder(
        f"vit_{SIZES[size]}_patch14{word}_dinov2.lvd142m",
        meta_positions=not registers,
        drop_path=drop_path,
        checkpointing=checkpointing,
    )
    _published(encoder, f"dinov2_vit{size}14{word}_pretrain.pth")
    return encoder


def dinov3(
    size: str, *, qkv_bias: bool = False, drop_path: float = 0.0, checkpointing: bool = False
) -> DinoEncoder:
    """Return a DINOv3 of patches of 16 pixels.

    Positions turn queries and keys; the jitter of Meta's training code stays off.

    Args:
        size: "s", "splus", "b" or "l".
        qkv_bias: with biases of queries and values, which are zero in Meta's files, and may not be
            in those of others.
        drop_path: probability of leaving out the deepest residual branch.
        checkpointing: compute activations again in the backward pass, for less memory.
    """
    word = SIZES[size[0]] + ("_plus" if size.endswith("plus") else "")
    encoder = DinoEncoder(
        f"vit_{word}_patch16_dinov3{'_qkvb' if qkv_bias else ''}.lvd1689m",
        drop_path=drop_path,
        checkpointing=checkpointing,
    )
    name = size.replace("plus", "") + "16" + ("plus" if size.endswith("plus") else "")
    _published(encoder, f"dinov3_vit{name}_pretrain_lvd1689m-*.pth")
    return encoder


def dinov3_convnext(
    size: str, *, output_stride: int = 32, drop_path: float = 0.0, checkpointing: bool = False
) -> DinoConvNeXt:
    """Return a ConvNeXt of DINOv3: "tiny", "small", "base" or "large"; see `timm_encoder`."""
    encoder = DinoConvNeXt(
        f"convnext_{size}.dinov3_lvd1689m",
        output_stride=output_stride,
        drop_path=drop_path,
        checkpointing=checkpointing,
    )
    _published(encoder, f"dinov3_convnext_{size}_pretrain_lvd1689m-*.pth")
    return encoder


def _published(encoder: Encoder, file: str) -> None:
    """State where an encoder's weights are."""
    timms = encoder.weight_file
    encoder.weight_file = f"{file}, or timm's {timms}"
    encoder.imagenet_hint = f"fetch {file}, timm's {timms} or Hugging Face's, and pass that file"


for _size in SIZES:
    ENCODERS.add(f"dinov2-{_size}14", partial(dinov2, _size))
for _name, _size in {"s16": "s", "s16plus": "splus", "b16": "b", "l16": "l"}.items():
    ENCODERS.add(f"dinov3-{_name}", partial(dinov3, _size))
for _size in ("tiny", "small", "base", "large"):
    ENCODERS.add(f"dinov3-convnext-{_size}", partial(dinov3_convnext, _size))
