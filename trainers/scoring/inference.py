"""Ask a network about an image: whole, centre crop, sliding window, fixed size, scales, flip.

A network is run on one or several *views* of an image; `Prediction` makes labels of them. Images
are shrunk with antialiasing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import kernels
from ...pipelines.normalization import NormalizationSettings
from ...pipelines.views.geometry import bound_scale, scaled_size
from ..engine.protocol import EvaluationSettings, flag_of
from .prediction import Part, Prediction, Size, View, place


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
    return Prediction(
        views, size, offset, stride, settings.average, align_corners=settings.align_corners
    )


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
            f"{flag_of('fill')} {settings.fill} is in RGB levels: hand in the normalization of the "
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
    rows, columns = (
        windows_along(length, side, settings.stride, settings.border)
        for length, side in zip((height, width), crop, strict=True)
    )
    # Windows of one size pass together; those that the border cuts have others.
    sizes: dict[Size, list[tuple[int, int]]] = {}
    for top, tall in rows:
        for left, wide in columns:
            sizes.setdefault((tall, wide), []).append((top, left))
    parts, stride = [], 1
    for size, corners in sizes.items():
        for start in range(0, len(corners), settings.window_batch):
            some = corners[start : start + settings.window_batch]
            windows = torch.cat([_place_image(image, size, corner, colour) for corner in some])
            logits, stride = _forward(network, windows, dtype)
            for corner, own in zip(some, logits.split(len(image)), strict=True):
                parts.append(Part(own, *corner, *size))
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


def windows_along(length: int, window: int, stride: float, border: str) -> list[tuple[int, int]]:
    """Return start and length of the windows along an axis; `border` "cut" ends them where the axis
    ends, and begins one at every step, however little of the axis is left."""
    if border == "shift" or length <= window:
        return [(start, window) for start in window_starts(length, window, stride)]
    # A product of 533.999 pixels is meant to be 534.
    step = max(math.floor(window * stride + 1e-6), 1)
    return [(start, min(window, length - start)) for start in range(0, length, step)]


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
    if settings.bound is not None:
        size = scaled_size(size, bound_scale(size, settings.bound))
    height, width = (
        max(math.floor(length / settings.multiple + 0.5), 1) * settings.multiple for length in size
    )
    return height, width
