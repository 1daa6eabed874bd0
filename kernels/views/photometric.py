"""The photometric perturbation of PhTPS: five operations with parameters drawn per image.

One-way consistency paper, Section 3.3, in this order: brightness is shifted by b, saturation
multiplied by s, hue shifted by h, contrast multiplied by c, and the RGB channels are permuted.
Space "hsv" (the default, as in the released code that produced the published numbers): the
brightness and contrast act on HSV's value. Space "rgb" (the paper's text): on all channels.
Nothing is clamped unless asked, so values may leave [0, 1] (down to -2.5, up to 2.5).

HSV to RGB and back is one closed form. With M and m the largest and smallest channel, D = M - m and
H the hue in sixths of a turn, channel n in (5, 3, 1) of the result is

    c (M' - D' clip(min(k, 4 - k), 0, 1)),   k = (n + H + 6 h) mod 6,   M' = M + b,
    D' = s D M' / M  in "hsv" (0 where M = 0),   D' = s D  in "rgb",

as S = D / M is the saturation and S V is all that the conversion back asks for. A permutation only
permutes the n.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..transfer import moved

__all__ = ["Photometric", "hsv_to_rgb", "photometric", "rgb_to_hsv", "sample_photometric"]

BRIGHTNESS = 0.25
"""b ~ U(-.25, .25)."""
FACTOR = (0.25, 2.0)
"""s, c ~ U(.25, 2)."""
HUE = 0.1
"""h ~ U(-.1, .1) turns, 36 degrees."""

_PERMUTATIONS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


@dataclass(frozen=True, kw_only=True)
class Photometric:
    """Parameters of N images: brightness, saturation, hue (turns), contrast (N,) float32;
    permutation (N, 3) int64: channel i of the result is channel permutation[i].
    """

    brightness: Tensor
    saturation: Tensor
    hue: Tensor
    contrast: Tensor
    permutation: Tensor

    def __post_init__(self) -> None:
        shape = self.brightness.shape
        same = all(p.shape == shape for p in (self.saturation, self.hue, self.contrast))
        if len(shape) != 1 or not same or self.permutation.shape != (*shape, 3):
            raise ValueError(
                "brightness, saturation, hue and contrast must be (N,) and permutation (N, 3); "
                f"got {[tuple(p.shape) for p in self.tensors]}"
            )

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The parameters in the order in which they are declared."""
        return self.brightness, self.saturation, self.hue, self.contrast, self.permutation

    def __len__(self) -> int:
        return self.brightness.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Photometric":
        """Return the same parameters on `device`."""
        names = ("brightness", "saturation", "hue", "contrast", "permutation")
        parts = moved(self.tensors, device, non_blocking)
        return Photometric(**dict(zip(names, parts, strict=True)))


def sample_photometric(
    batch: int,
    *,
    strength: float = 1.0,
    permute: str = "image",
    generator: torch.Generator | None = None,
) -> Photometric:
    """Draw the parameters of `batch` images on the CPU (Section 3.3).

    strength (the paper's s_P) scales b and h, is the exponent of s and c, and the probability of a
    permutation (at most 1); 0 gives the identity exactly. permute "image": a permutation for each
    image, as the paper says; "batch": one for all, as the released code does.
    """
    if permute not in ("image", "batch"):
        raise ValueError(f"permute must be image or batch; got {permute!r}")
    if strength < 0:
        raise ValueError(f"strength must not be negative; got {strength}")
    uniform = torch.rand(4, batch, generator=generator)
    low, high = FACTOR
    brightness, hue = (2 * uniform[:2] - 1) * strength
    saturation, contrast = (low + (high - low) * uniform[2:]) ** strength
    groups = batch if permute == "image" else 1
    choice = torch.randint(len(_PERMUTATIONS), (groups,), generator=generator)
    permuted = torch.rand(groups, generator=generator) < strength
    permutation = torch.tensor(_PERMUTATIONS)[torch.where(permuted, choice, 0)]
    return Photometric(
        brightness=brightness * BRIGHTNESS,
        saturation=saturation,
        hue=hue * HUE,
        contrast=contrast,
        permutation=permutation.expand(batch, 3).contiguous(),
    )


def photometric(image: Tensor, p: Photometric, space: str = "hsv", clamp: bool = False) -> Tensor:
    """Apply the five operations to `image`, (N, 3, H, W) floating RGB in [0, 1].

    Returns a new tensor of the same shape and dtype (fp16 and bf16 are computed in fp32), clamped
    to [0, 1] if asked. Raises ValueError for an unknown space.
    """
    check_photometric(image.shape[0], p, space)
    wide = torch.promote_types(image.dtype, torch.float32)
    columns = (p.brightness, p.saturation, p.hue * 6, p.contrast)
    brightness, saturation, hue, contrast = (c.to(wide)[:, None, None] for c in columns)
    largest, chroma, sixths = _hexcone(image.to(wide))
    value = largest + brightness
    if space == "hsv":
        chroma = chroma.mul_(value).div_(torch.where(largest == 0, 1, largest))
        chroma = torch.where(largest == 0, 0, chroma)
    offsets = _offsets(image.device, wide)[p.permutation]
    shares = _channel_shares(sixths.add_(hue)[:, None], offsets[:, :, None, None])
    shares.mul_(chroma.mul_(saturation * -contrast)[:, None]).add_(value.mul_(contrast)[:, None])
    return (shares.clamp_(0, 1) if clamp else shares).to(image.dtype)


def rgb_to_hsv(image: Tensor) -> Tensor:
    """Convert (N, 3, H, W) RGB to hue in [0, 1), saturation, value (0 where undefined)."""
    largest, chroma, sixths = _hexcone(image)
    hue = torch.where(chroma == 0, 0, sixths / 6 % 1)
    saturation = torch.where(largest == 0, 0, chroma / torch.where(largest == 0, 1, largest))
    return torch.stack([hue, saturation, largest], dim=1)


def hsv_to_rgb(image: Tensor) -> Tensor:
    """Convert (N, 3, H, W) hue (turns, any), saturation, value to RGB; nothing is clamped."""
    hue, saturation, value = image.unbind(1)
    offsets = _offsets(image.device, image.dtype)
    shares = _channel_shares(hue[:, None] * 6, offsets[:, None, None])
    return value[:, None] - (value * saturation)[:, None] * shares


def check_photometric(batch: int, p: Photometric, space: str) -> None:
    """Raise ValueError for parameters of another batch or an unknown space."""
    if space not in ("hsv", "rgb"):
        raise ValueError(f"space must be hsv or rgb; got {space!r}")
    if len(p) != batch:
        raise ValueError(f"one set of parameters per image: got {len(p)} for {batch} images")


def _hexcone(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest channel, the chroma and the hue in sixths of a turn, in [-1, 5].

    On a tie the later channel decides (blue over green over red), as in the released code.
    """
    red, green, blue = image.unbind(1)
    largest = torch.maximum(torch.maximum(red, green), blue)
    chroma = largest - torch.minimum(torch.minimum(red, green), blue)
    divisor = torch.where(chroma == 0, 1, chroma)
    sixths = torch.where(
        largest == green, (blue - red).div_(divisor).add_(2), (green - blue).div_(divisor)
    )
    sixths = torch.where(largest == blue, (red - green).div_(divisor).add_(4), sixths)
    return largest, chroma, sixths


def _offsets(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return 5, 3, 1, made on the device: a copy from the host would wait for it."""
    return 5 - 2 * torch.arange(3, device=device, dtype=dtype)


def _channel_shares(sixths: Tensor, offsets: Tensor) -> Tensor:
    """Return the share of the chroma that each channel lacks: clip(min(k, 4 - k), 0, 1)."""
    k = sixths + offsets
    k.sub_((k / 6).floor_().mul_(6))
    return k.sub_(2).abs_().neg_().add_(2).clamp_(0, 1)
