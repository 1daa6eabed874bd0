"""From a uint8 crop to the network's input: photometric change, TPS warp, normalisation, validity.

The photometric change comes before the warp, so each of the four source pixels is changed before
they are blended; outside of the image lies black (0 in [0, 1] RGB, before normalisation), as in the
one-way consistency paper's code. The result is channels-last.

Images of 1 to 16 channels of 8 or 16 bits are warped and normalised alike, by the reference on any
device: the kernels know RGB of 8 bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dispatch import use_op
from ..window import window_mask
from .photometric import Photometric, check_photometric, photometric
from .strong_view_triton import strong_view_op
from .tps import TPS, inside, source_positions
from .warp import sample_bilinear

__all__ = ["StrongView", "normalize", "strong_view", "strong_view_reference"]

Triple = Sequence[float]
HIGHEST = {torch.uint8: 255, torch.uint16: 65535}
"""The level that is 1."""
MOST = 16
"""Channels that an image may have."""


@dataclass(frozen=True, kw_only=True)
class StrongView:
    """strong: (N, 3, H, W) normalised, channels-last; valid: (N, H, W) bool, pixels whose source
    lies within the image and the window; weak: the normalised crop, or None where not asked for.
    """

    strong: Tensor
    valid: Tensor
    weak: Tensor | None


def strong_view(
    crop: Tensor,
    *,
    photometric: Photometric | None = None,
    tps: TPS | None = None,
    mean: Triple,
    std: Triple,
    window: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    with_weak: bool = False,
    space: str = "hsv",
    clamp: bool = False,
) -> StrongView:
    """Make the strong view (and the weak one, if asked) of a batch of crops.

    crop: (N, H, W, 3) uint8 RGB; without a photometric change also (N, H, W, C) uint8 or uint16.
    photometric, tps: the perturbation, None to leave it out.
    mean, std: per channel, in units of [0, 1]. window: (N, 4) integers [top, left, bottom, right),
    the part of the crop that shows the image. dtype: float32, float16 or bfloat16.
    space, clamp: see `photometric`. No gradient. Raises ValueError for other shapes or dtypes.
    """
    first = None if photometric is None else photometric.brightness
    plain = crop.shape[-1] == 3 and crop.dtype == torch.uint8
    if not plain or not use_op(crop, first, None if tps is None else tps.points, window):
        return strong_view_reference(
            crop,
            photometric=photometric,
            tps=tps,
            mean=mean,
            std=std,
            window=window,
            dtype=dtype,
            with_weak=with_weak,
            space=space,
            clamp=clamp,
        )
    check_strong_view(crop, photometric, tps, mean, std, window, space)
    strong, valid, weak = strong_view_op(
        crop,
        [] if photometric is None else list(photometric.tensors),
        [] if tps is None else [tps.points, tps.weights],
        window,
        list(mean),
        list(std),
        dtype,
        space == "hsv",
        clamp,
        with_weak,
    )
    return StrongView(strong=strong, valid=valid, weak=weak if with_weak else None)


def strong_view_reference(
    crop: Tensor,
    *,
    photometric: Photometric | None = None,
    tps: TPS | None = None,
    mean: Triple,
    std: Triple,
    window: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    with_weak: bool = False,
    space: str = "hsv",
    clamp: bool = False,
) -> StrongView:
    """Define `strong_view` in plain PyTorch, for any device; computes in float32."""
    check_strong_view(crop, photometric, tps, mean, std, window, space)
    batch, height, width, _ = crop.shape
    image = _to_unit(crop)
    weak = _standardize(image, mean, std, dtype) if with_weak else None
    if photometric is not None:
        image = _photometric(image, photometric, space, clamp)
    if tps is not None:
        x, y = source_positions(tps, (height, width))
        image = sample_bilinear(image, x, y)
        valid = inside(x, y, (height, width), window)
    elif window is not None:
        valid = window_mask(window, (height, width))
    else:
        valid = torch.ones(batch, height, width, dtype=torch.bool, device=crop.device)
    return StrongView(strong=_standardize(image, mean, std, dtype), valid=valid, weak=weak)


def normalize(
    crop: Tensor, mean: Triple, std: Triple, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Normalise crops (N, H, W, C), uint8 or uint16, to (N, C, H, W) channels-last of `dtype`.

    (crop / 255 - mean) / std, of 16 bits crop / 65535: `strong_view` without a perturbation.
    """
    return strong_view(crop, mean=mean, std=std, dtype=dtype).strong


def check_strong_view(
    crop: Tensor,
    p: Photometric | None,
    tps: TPS | None,
    mean: Triple,
    std: Triple,
    window: Tensor | None,
    space: str,
) -> None:
    """Raise ValueError for what `strong_view` cannot take."""
    if crop.ndim != 4 or not 1 <= crop.shape[3] <= MOST or crop.dtype not in HIGHEST:
        raise ValueError(
            f"crop must be (N, H, W, 3) uint8; got {tuple(crop.shape)} {crop.dtype}; permute and "
            f"keep the loader's bytes (1 to {MOST} channels, and uint16, will do, too)"
        )
    batch, channels = crop.shape[0], crop.shape[3]
    if p is not None:
        if (channels, crop.dtype) != (3, torch.uint8):
            raise ValueError(
                f"the photometric change is one of RGB of 8 bits; got {channels} channels of "
                f"{crop.dtype}: leave it out"
            )
        check_photometric(batch, p, space)
    if tps is not None and len(tps) != batch:
        raise ValueError(f"one spline per image: got {len(tps)} for {batch} images")
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        several = "triples" if channels == 3 else f"numbers, one for each of {channels} channels"
        raise ValueError(f"mean and std must be positive {several}; got {mean} and {std}")
    if window is not None and window.shape != (batch, 4):
        raise ValueError(f"window must be ({batch}, 4); got {tuple(window.shape)}")


_photometric = photometric


def _to_unit(crop: Tensor) -> Tensor:
    """Return contiguous (N, C, H, W) float32 in [0, 1]; planes are what the CPU vectorises."""
    planes = crop.permute(0, 3, 1, 2)
    wide = planes.to(torch.float32, memory_format=torch.contiguous_format)
    return wide.div_(HIGHEST[crop.dtype])


def _standardize(image: Tensor, mean: Triple, std: Triple, dtype: torch.dtype) -> Tensor:
    """Return (image - mean) / std in `dtype`, channels-last, as one multiplication and addition."""
    # Constants travel without the host waiting for the device.
    scale, shift = (
        torch.tensor(values)[:, None, None].to(image.device, non_blocking=True)
        for values in ([1 / s for s in std], [-m / s for m, s in zip(mean, std, strict=True)])
    )
    return torch.addcmul(shift, image, scale).to(dtype, memory_format=torch.channels_last)
