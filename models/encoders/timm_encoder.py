"""Any encoder of timm: `timm:resnet50`, `timm:convnext_tiny.dinov3_lvd1689m`.

Features at strides 4 and coarser, at most four; where timm's encoder lets them be finer by
dilation, `output_stride` does. What an encoder returns is found out on the meta device, which
computes shapes alone: strides, whether it needs images of whole multiples, the order of axes.
"""

import functools
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, cast

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ..network import Encoder
from ..weights.names import Rules, translate
from .of_timm import checkpoint_backbone, describe
from .vit import VitEncoder

CONVNEXT: Rules = (
    # Hugging Face's, of DINOv3
    (r"^(?:model\.)?stages\.0\.downsample_layers\.", "stem."),
    (r"^(?:model\.)?stages\.(\d)\.downsample_layers\.", r"stages.\1.downsample."),
    (r"^(?:model\.)?stages\.(\d)\.layers\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.depthwise_conv\.", ".conv_dw."),
    (r"\.layer_norm\.", ".norm."),
    (r"\.pointwise_conv(\d)\.", r".mlp.fc\1."),
    (r"^layer_norm\.", "head.norm."),
    # Meta's
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."),
    (r"^(stages\.\d)\.(\d+)\.", r"\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
    (r"^norm\.", "head.norm."),
)
"""Others' names of ConvNeXt, those of DINOv3 among them."""

LARGEST = 4
"""Levels at most."""


@dataclass(frozen=True)
class Shape:
    """What an encoder of timm returns."""

    options: tuple[tuple[str, Any], ...]
    """Arguments that let it take images of any size."""
    levels: tuple[int, ...]
    """Indices of its levels."""
    reductions: tuple[int, ...]
    channels: tuple[int, ...]
    multiple: int
    """Images must be multiples of it; 1 where a level has ceil(H/stride) rows for any H."""
    last_axis: bool
    """Channels come last."""


def timm_encoder(
    name: str, *, output_stride: int = 32, drop_path: float = 0.0, checkpointing: bool = False
) -> Encoder:
    """Return an encoder of timm, a `TimmEncoder` or, of plain vision transformers, a `VitEncoder`.

    Args:
        name: its name in timm, with or without the tag of weights.
        output_stride: greatest stride of features: 32, or 16 or 8 by dilation.
        drop_path: probability of leaving out the deepest residual branch; it falls towards the
            first one.
        checkpointing: compute activations again in the backward pass, for less memory.

    Raises ValueError for a name that timm does not know, and for what this encoder cannot do.
    """
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=5)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise ValueError(f"timm has no encoder {name!r}: {hint}")
    if _is_vit(name):
        if output_stride not in (16, 32):
            raise ValueError(f"{name} has no features at stride {output_stride}: leave it out")
        return VitEncoder(name, drop_path=drop_path, checkpointing=checkpointing)
    return TimmEncoder(
        name, output_stride=output_stride, drop_path=drop_path, checkpointing=checkpointing
    )


class TimmEncoder(Encoder):
    """An encoder of timm that returns features of several strides; arguments: `timm_encoder`."""

    def __init__(
        self,
        name: str,
        *,
        output_stride: int = 32,
        drop_path: float = 0.0,
        checkpointing: bool = False,
        imagenet: str = "",
        rules: Rules = (),
    ) -> None:
        super().__init__()
        shape = probe(name, output_stride)
        self.model = _create(name, output_stride, drop_path, shape.levels, dict(shape.options))
        self.channels, self.reductions = shape.channels, shape.reductions
        self.multiple = shape.multiple
        self._last_axis = shape.last_axis
        self._rules = (*rules, *(CONVNEXT if name.startswith("convnext") else ()))
        self.imagenet = imagenet
        self.stages, self._units = self._layers()
        describe(self, name)
        if checkpointing:
            checkpoint_backbone(self, self.model, name)

    def _layers(self) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
        """Return the parameters' names by layer, cut behind the module of each level, and those of
        timm's modules at the root."""
        info = cast(Any, self.model).feature_info
        ends = [name.replace(".", "_") for name in info.module_name()]
        layers: list[list[str]] = [[] for _ in range(LARGEST + 1)]
        reached, inside = 0, False
        for name, _ in self.model.named_parameters():
            flat = name.replace(".", "_") + "_"
            for index in range(reached, len(ends)):
                if flat.startswith(ends[index] + "_"):
                    reached, inside = index, True
                    break
            else:
                if inside:
                    reached, inside = reached + 1, False
            last = min(reached + 1 if inside or reached else 0, LARGEST)
            layers[last].append(f"model.{name}")
        roots = {re.split(r"[._]\d", name)[0].split(".")[0] for name in self.model.state_dict()}
        return tuple(tuple(layer) for layer in layers), tuple(sorted(roots))

    def names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Know timm's own files and, of ConvNeXt, Meta's."""
        own = set(self.state_dict())
        renamed = {}
        for key, value in state.items():
            name = key if key in own else translate(key, self._rules)
            flat = re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", name)
            candidates = (name, f"model.{name}", f"model.{flat}", f"model.{_flatter(name)}")
            found = next((candidate for candidate in candidates if candidate in own), None)
            if found is None and name.split(".")[0] in self._units:
                found = f"model.{name}"  # a part that this encoder should have: refused later
            renamed[found or name] = value
        return renamed

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return features, fine to coarse, channels-last, of images (N,3,H,W)."""
        features = self.model(image)
        if self._last_axis:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return tuple(features)


@functools.cache
def probe(name: str, output_stride: int) -> Shape:
    """Return what an encoder of timm returns. Raise ValueError where it cannot be used."""
    faults = []
    for options in ({}, {"strict_img_size": False}, {"dynamic_img_size": True}):
        try:
            with torch.device("meta"):
                model = _create(name, output_stride, 0.0, None, options)
                whole = _shapes(model, (96, 160))
        except (TypeError, AssertionError, RuntimeError, ValueError, NotImplementedError) as error:
            faults.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
            continue
        return _shape(model, options, whole)
    raise ValueError(
        f"timm's {name} gives no features of images of other sizes at stride {output_stride} "
        f"({faults[0]}): choose another encoder, or another output_stride"
    )


def _shape(model: nn.Module, options: dict[str, Any], whole: list[tuple[int, ...]]) -> Shape:
    info = cast(Any, model).feature_info
    reductions, channels = info.reduction(), info.channels()
    last_axis = whole[-1][-1] == channels[-1] and whole[-1][1] != channels[-1]
    levels = [index for index, reach in enumerate(reductions) if reach >= 4][-LARGEST:]
    reached = tuple(reductions[index] for index in levels)
    try:
        with torch.device("meta"):
            odd = _shapes(model, (97, 131))
    except (RuntimeError, AssertionError, ValueError):
        odd = []
    axes = (1, 2) if last_axis else (2, 3)
    sizes = [tuple(odd[index][axis] for axis in axes) for index in levels] if odd else []
    exact = [(-(-97 // reach), -(-131 // reach)) for reach in reached]
    return Shape(
        options=tuple(options.items()),
        levels=tuple(levels),
        reductions=reached,
        channels=tuple(channels[index] for index in levels),
        multiple=1 if sizes == exact else max(reductions),
        last_axis=last_axis,
    )


def _shapes(model: nn.Module, size: tuple[int, int]) -> list[tuple[int, ...]]:
    with torch.no_grad():
        image = torch.empty(1, 3, *size, device="meta")
        return [tuple(feature.shape) for feature in model.eval()(image)]


def _create(
    name: str,
    output_stride: int,
    drop_path: float,
    levels: tuple[int, ...] | None,
    options: dict[str, Any],
) -> nn.Module:
    chosen = dict(options)
    if output_stride != 32:
        chosen["output_stride"] = output_stride
    if drop_path:
        chosen["drop_path_rate"] = drop_path
    if levels is not None:
        chosen["out_indices"] = levels
    return timm.create_model(name, pretrained=False, features_only=True, **chosen).train()


def _is_vit(name: str) -> bool:
    """Tell whether timm's encoder is a plain vision transformer, of one resolution."""
    module = timm.model_entrypoint(name).__module__
    if not module.endswith((".vision_transformer", ".eva", ".deit")):
        return False
    with torch.device("meta"):
        return isinstance(timm.create_model(name), VisionTransformer | Eva)


def _flatter(name: str) -> str:
    """Return a name as timm flattens it where two levels of modules become one."""
    return re.sub(r"^(\w+)\.(\w+)\.", r"\1_\2.", name)
