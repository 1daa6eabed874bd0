"""Plain vision transformers of timm, whose features are normed tokens of four depths.

timm's blocks, with the features of DINO's evaluations: after blocks 2, 5, 8 and 11 (24 blocks: 4,
11, 17, 23), the final norm on each, class and register tokens left out. All lie at the stride of
the patches.
"""

from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ..network import Encoder
from .of_timm import checkpoint_backbone, describe

OFFSET = 0.1
"""What DINOv2's code adds to a grid's size before it divides by the table's."""


class MetaPositions(VisionTransformer):
    """A vision transformer that resamples its table of positions as DINOv2's code does.

    That is bicubic, without antialiasing, at the scale (n + 0.1) / 37; timm antialiases, and takes
    the exact scale. They agree at the table's own size. (With registers, Meta does as timm.)
    """

    def _pos_embed(self, x: Tensor) -> Tensor:
        images, height, width, channels = x.shape
        token, positions = cast(Tensor, self.cls_token), cast(Tensor, self.pos_embed)
        patches = positions[:, 1:]
        side = round(patches.shape[1] ** 0.5)
        if torch.compiler.is_exporting() and not isinstance(height, int):
            raise ValueError("DINOv2's positions are not resampled at their own size")
        if (height, width) != (side, side):
            table = patches.float().reshape(1, side, side, channels).permute(0, 3, 1, 2)
            scale = [(height + OFFSET) / side, (width + OFFSET) / side]
            table = F.interpolate(table, scale_factor=scale, mode="bicubic")
            patches = table.permute(0, 2, 3, 1).reshape(1, height * width, channels).to(x.dtype)
        first = (token + positions[:, :1]).expand(images, -1, -1)
        tokens = x.reshape(images, height * width, channels) + patches
        return self.pos_drop(torch.cat((first.to(tokens.dtype), tokens), dim=1))


class VitEncoder(Encoder):
    """A vision transformer of timm.

    Args:
        name: its name in timm.
        meta_positions: resample positions as DINOv2's code does, not as timm.
        drop_path: probability of leaving out the deepest residual branch.
        checkpointing: compute activations again in the backward pass.
    """

    def __init__(
        self,
        name: str,
        *,
        meta_positions: bool = False,
        drop_path: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.model: Any = timm.create_model(
            name,
            pretrained=False,
            num_classes=0,
            global_pool="",
            dynamic_img_size=True,
            drop_path_rate=drop_path,
        )
        if meta_positions:
            self.model.__class__ = MetaPositions
        blocks = len(self.model.blocks)
        self.levels = (
            [4, 11, 17, 23]
            if blocks == 24
            else [(quarter + 1) * blocks // 4 - 1 for quarter in range(4)]
        )
        patch = self.model.patch_embed.patch_size[0]
        self.channels = (self.model.embed_dim,) * 4
        self.reductions = (patch,) * 4
        self.multiple = self.minimum_size = patch
        self.stages = self._layers(blocks)
        describe(self, name)
        if checkpointing:
            checkpoint_backbone(self, self.model, name)

    def _layers(self, blocks: int) -> tuple[tuple[str, ...], ...]:
        """Return the modules of the embeddings and of the quarters of the blocks."""
        quarters: list[list[str]] = [[] for _ in range(4)]
        for block in range(blocks):
            quarters[4 * block // blocks].append(f"model.blocks.{block}")
        quarters[-1].append("model.norm")
        roots = dict.fromkeys(name.split(".")[0] for name, _ in self.model.named_parameters())
        rest = [f"model.{root}" for root in roots if root not in ("blocks", "norm")]
        return tuple(tuple(part) for part in (rest, *quarters))

    def depth_of(self, name: str) -> int:
        """Return the number of a parameter's block, from 1; 0 for embeddings."""
        words = name.split(".")
        if words[1] == "blocks":
            return int(words[2]) + 1
        return self.depth if words[1] == "norm" else 0

    @property
    def depth(self) -> int:
        """Number of blocks, and one: the final norm's."""
        return len(cast(Any, self.model).blocks) + 1

    def names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Know timm's own files."""
        return prefixed(self, state)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return four features (N,D,H/p,W/p), channels-last, of images (N,3,H,W)."""
        found = self.model.forward_intermediates(
            image, indices=self.levels, norm=True, output_fmt="NLC", intermediates_only=True
        )
        rows, columns = (side // self.multiple for side in image.shape[-2:])
        return tuple(
            tokens.reshape(tokens.shape[0], rows, columns, -1).permute(0, 3, 1, 2)
            for tokens in found
        )


def prefixed(encoder: Encoder, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state with timm's names under the encoder's, `model.` before them."""
    own = set(encoder.state_dict())
    # Tokens that this one does not have, too: a file with other tokens must not pass.
    roots = {name.split(".")[1] for name in own} | {"cls_token", "reg_token", "pos_embed"}
    return {
        f"model.{key}" if key not in own and key.split(".")[0] in roots else key: value
        for key, value in state.items()
    }
