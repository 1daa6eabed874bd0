"""Ask a network about an image: whole, centre crop, sliding window, fixed size, scales, flip.

A network is run on one or several *views* of an image; `Prediction` makes labels of them. Images
are shrunk with antialiasing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import IGNORE, kernels
from ..pipelines.geometry import bound_scale, scaled_size
from ..pipelines.settings import NormalizationSettings
from .prediction import Part, Prediction, Size, View, place


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How a network is asked for labels; part of the protocol, and printed with every score."""

    mode: Literal["whole", "center_crop", "sliding", "resize"] = "whole"
    """whole: the image at its own size; center_crop: only its middle, padded where it is smaller;
    sliding: windows that overlap, averaged; resize: image and mask brought to one size, at which
    the score is taken."""
    crop_size: tuple[int, int] | None = None
    """Height and width of the centre crop or of a sliding window, in pixels."""
    stride: float = 2 / 3
    """Step between sliding windows as a share of crop_size."""
    window_batch: int = 4
    """Sliding windows that pass through the network at once; fewer need less memory."""
    size: tuple[int, int] | None = None
    """Height and width of mode resize (DMT on Cityscapes: 512 1024)."""
    bound: tuple[int, int] | None = None
    """Short and long edge, in pixels, that the image is enlarged or shrunk to fit, its shape kept;
    labels are still made and scored at its own size (MKD on VOC: 512 512)."""
    pad_to: tuple[int, int] | None = None
    """Least height and width of what the network sees in mode whole; smaller images are padded
    below and on the right, and the padding is never scored (DMT on VOC: 505 505, SimpleBaseline on
    Cityscapes: 1025 2049)."""
    fill: tuple[int, int, int] | None = None
    """RGB levels (0 to 255) of the padding (DMT on VOC: 0 0 0); None takes the mean colour of the
    normalisation."""
    padding_class: int | None = None
    """Class that pixels outside the image count as in mode center_crop; None leaves them out
    (GTA-Seg's released code on VOC: 0, which flatters background)."""
    scales: tuple[float, ...] = (1.0,)
    """Factors at which the image is labeled; more than one are averaged."""
    flip: bool = False
    """Label the mirrored image, too, and average."""
    average: Literal["softmax", "logits"] = "softmax"
    """What is averaged over windows, scales and flips."""

    def __post_init__(self) -> None:
        for name in ("crop_size", "size", "bound", "pad_to"):
            value = getattr(self, name)
            if value is not None and (len(value) != 2 or min(value) < 1):
                raise ValueError(f"{_flag(name)} takes two lengths of 1 pixel or more; got {value}")
        if (self.crop_size is None) == (self.mode in ("center_crop", "sliding")):
            raise ValueError(f"evaluation mode {self.mode} {_needs('crop_size', self.crop_size)}")
        if (self.size is None) == (self.mode == "resize"):
            raise ValueError(f"evaluation mode {self.mode} {_needs('size', self.size)}")
        if self.pad_to is not None and (self.mode != "whole" or self.bound is not None):
            raise ValueError(f"{_flag('pad_to')} is for mode whole, without {_flag('bound')}")
        if self.bound is not None and self.mode not in ("whole", "sliding"):
            raise ValueError(f"{_flag('bound')} is for mode whole or sliding, not {self.mode}")
        if self.fill is not None and (
            len(self.fill) != 3 or not all(0 <= level <= 255 for level in self.fill)
        ):
            raise ValueError(
                f"{_flag('fill')} takes three levels from 0 to 255 or None; got {self.fill}"
            )
        if self.padding_class is not None and (
            self.mode != "center_crop" or not 0 <= self.padding_class < IGNORE
        ):
            raise ValueError(
                f"{_flag('padding_class')} is a class id or None, and for mode center_crop; got "
                f"{self.padding_class} for mode {self.mode}"
            )
        if not 0 < self.stride <= 1:
            raise ValueError(f"{_flag('stride')} must be above 0 and at most 1; got {self.stride}")
        if self.window_batch < 1:
            raise ValueError(f"{_flag('window_batch')} must be at least 1; got {self.window_batch}")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(
                f"{_flag('scales')} takes one or more factors above 0; got {self.scales}"
            )

    def describe(self) -> str:
        """Return the protocol in a few words, for printing beside a score."""
        words = [self.mode.replace("_", " ")]
        lengths = {"crop_size": "", "size": "to ", "bound": "bound ", "pad_to": "padded to "}
        for name, word in lengths.items():
            if (value := getattr(self, name)) is not None:
                words.append(f"{word}{value[0]}x{value[1]}")
        if self.fill is not None and (self.pad_to is not None or self.crop_size is not None):
            words.append("fill " + " ".join(map(str, self.fill)))
        if self.padding_class is not None:
            words.append(f"padding as class {self.padding_class}")
        if self.mode == "sliding":
            words.append(f"stride {self.stride:.3g}")
        if self.scales != (1.0,):
            words.append("scales " + " ".join(f"{scale:g}" for scale in self.scales))
        if self.flip:
            words.append("flip")
        if self.mode == "sliding" or self.flip or len(self.scales) > 1:
            words.append(f"mean {self.average}")
        return ", ".join(words)


def predict_logits(
    network: nn.Module,
    image: Tensor,
    settings: EvaluationSettings | None = None,
    *,
    normalization: NormalizationSettings | None = None,
    dtype: torch.dtype = torch.float32,
) -> Prediction:
    """Run a network on images (N, 3, H, W), normalised, floating point, and return what it says.

    `normalization` is that of the images; settings with a `fill` need it. The network's mode and
    gradients are the caller's (see `evaluating`). With `dtype` bfloat16 or float16 it runs under
    autocast. Raises ValueError for a network whose logits do not cover the image.
    """
    settings = EvaluationSettings() if settings is None else settings
    colour = _padding_colour(image, settings, normalization)
    height, width = image.shape[-2:]
    size, offset = (height, width), (0, 0)
    if settings.mode == "center_crop":
        assert settings.crop_size is not None
        size = settings.crop_size
        # Odd padding goes below and to the right.
        offset = (_middle(height, size[0]), _middle(width, size[1]))
        image = _place_image(image, size, offset, colour)
    base = _base_size(size, settings)
    views, stride = [], 1
    for scale in settings.scales:
        scaled = scaled_size(base, scale)
        resized = resize_image(image, scaled)
        for flip in (False, True) if settings.flip else (False,):
            seen = resized.flip(-1) if flip else resized
            parts, stride = _run(network, seen, settings, colour, dtype)
            views.append(View(scaled, flip, parts))
    return Prediction(views, size, offset, stride, settings.average)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Hold a network in evaluation mode, without gradients; give each module its own mode back.

    Hand in the network itself, not a distributed wrapper, whose forward pass may wait for other
    ranks. cuDNN times no convolutions meanwhile: whole images come in many sizes.
    """
    modes = [(module, module.training) for module in network.modules()]
    tuned = torch.backends.cudnn.benchmark
    network.eval()
    try:
        torch.backends.cudnn.benchmark = False
        with torch.no_grad():
            yield
    finally:
        torch.backends.cudnn.benchmark = tuned
        for module, mode in modes:
            module.training = mode


def resize_image(image: Tensor, size: Size) -> Tensor:
    """Resize images (N, 3, H, W) bilinearly, antialiased where they shrink."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    resized = F.interpolate(
        image.float(), size=size, mode="bilinear", align_corners=False, antialias=True
    )
    return resized.to(image.dtype)


def resize_mask(mask: Tensor, size: Size) -> Tensor:
    """Resize masks (N, H, W) to the nearest class id."""
    if tuple(mask.shape[-2:]) == tuple(size):
        return mask
    resized = F.interpolate(mask[:, None].float(), size=size, mode="nearest-exact")
    return resized[:, 0].to(mask.dtype)


def _padding_colour(
    image: Tensor, settings: EvaluationSettings, normalization: NormalizationSettings | None
) -> Tensor | None:
    """Return the levels of padding, normalised, (1, 3, 1, 1); None for zeros, the mean colour."""
    if settings.fill is None:
        return None
    if normalization is None:
        raise ValueError(
            f"{_flag('fill')} {settings.fill} is in RGB levels: hand in the normalization of the "
            "images, too"
        )
    # Scalars travel with their launches, where a tensor of them would make the host wait.
    one = partial(torch.full, (1, 1, 1, 1), dtype=torch.uint8, device=image.device)
    levels = torch.cat([one(level) for level in settings.fill], dim=3)
    return kernels.normalize(levels, normalization.mean, normalization.std, image.dtype)


def _place_image(
    image: Tensor, size: Size, offset: tuple[int, int], colour: Tensor | None
) -> Tensor:
    placed = place(image, size, offset, 0.0)
    if colour is None or placed is image:
        return placed
    shown = torch.ones(image.shape[-2:], dtype=torch.bool, device=image.device)
    return torch.where(place(shown, size, offset, False), placed, colour)


def _run(
    network: nn.Module,
    image: Tensor,
    settings: EvaluationSettings,
    colour: Tensor | None,
    dtype: torch.dtype,
) -> tuple[list[Part], int]:
    """Pass one view through the network, whole or in windows."""
    height, width = image.shape[-2:]
    if settings.mode != "sliding":
        least = settings.pad_to or (1, 1)
        padded = (max(height, least[0]), max(width, least[1]))
        logits, stride = _forward(network, _place_image(image, padded, (0, 0), colour), dtype)
        return [Part(logits, 0, 0, *padded)], stride
    assert settings.crop_size is not None
    crop = settings.crop_size
    tops, lefts = (
        window_starts(length, side, settings.stride)
        for length, side in zip((height, width), crop, strict=True)
    )
    corners = [(top, left) for top in tops for left in lefts]
    parts, stride = [], 1
    for start in range(0, len(corners), settings.window_batch):
        some = corners[start : start + settings.window_batch]
        windows = torch.cat([_place_image(image, crop, corner, colour) for corner in some])
        logits, stride = _forward(network, windows, dtype)
        for corner, own in zip(some, logits.split(len(image)), strict=True):
            parts.append(Part(own, *corner, *crop))
    return parts, stride


def _forward(network: nn.Module, image: Tensor, dtype: torch.dtype) -> tuple[Tensor, int]:
    image = image.contiguous(memory_format=torch.channels_last)
    with torch.autocast(image.device.type, dtype=dtype, enabled=dtype != torch.float32):
        logits = network(image)
    size = image.shape[-2:]
    stride = getattr(network, "output_stride", None) or math.ceil(size[0] / logits.shape[-2])
    if tuple(logits.shape[-2:]) != tuple(-(-length // stride) for length in size):
        raise ValueError(
            f"the network returned {logits.shape[-2]}x{logits.shape[-1]} logits for an image of "
            f"{size[0]}x{size[1]} pixels, which is no map at stride {stride}; a classifier is "
            "scored with task classification"
        )
    return logits, stride


def window_starts(length: int, window: int, stride: float) -> list[int]:
    """Return where windows begin along an axis so that they cover it; the last one ends at its end.

    One window on a shorter axis, centred, begins before 0.
    """
    if length <= window:
        return [_middle(length, window)]
    step = math.ceil(window * stride)
    count = math.ceil((length - window) / step) + 1
    return [min(number * step, length - window) for number in range(count)]


def _middle(length: int, window: int) -> int:
    return (length - window) // 2 if length >= window else -((window - length) // 2)


def _base_size(size: Size, settings: EvaluationSettings) -> Size:
    """Size of the view of scale 1."""
    if settings.mode == "resize":
        assert settings.size is not None
        return settings.size
    if settings.bound is None:
        return size
    return scaled_size(size, bound_scale(size, settings.bound))


def _flag(name: str) -> str:
    return f"--evaluation.{name.replace('_', '-')}"


def _needs(name: str, value: tuple[int, int] | None) -> str:
    """Return what a mode misses, or what it cannot use, perhaps a setting of the run's own."""
    if value is None:
        return f"needs {_flag(name)}"
    return f"does not take {_flag(name)}, which is {value}: add {_flag(name)} None"
