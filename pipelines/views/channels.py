"""Changes of each channel by itself, for images of any channels of 8 or 16 bits.

What makes sense whatever a channel measures, in this order: a Gaussian blur; gain, the channel's
own factor, as of a sensor or of the light; contrast, one factor for all channels, about each one's
mean in the crop; brightness, one shift for all, and noise of each pixel, both in standard
deviations of the normalisation, so that a channel that fills a small part of its range is changed
as much as one that fills all of it. Levels are clipped to their range. View "chtps" warps as
"phtps" does. Hue, saturation and the like have no meaning here.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.views.strong_view import HIGHEST
from ...kernels.views.tps import inside, source_positions
from ...kernels.views.warp import sample_bilinear
from ...kernels.window import window_mask
from ..registry import VIEWS
from ..settings import StrongSettings
from ..strong import Crop, Draws, Perturbed, View
from .phtps import draw_tps

GAIN = 0.2
"""Greatest change of a channel's own factor, at strength 1."""
NOISE = 0.1
"""Greatest standard deviation of the noise, in those of the channel, at strength 1."""
_PURPOSE = 12
"""What is drawn at a position; a second view takes 13."""


@VIEWS.register("channels")
@VIEWS.register("chtps")
class ChannelsView(View):
    """Brightness, contrast, gain, noise and blur; none beyond the window; perhaps the warp."""

    twice = True
    any_channels = True

    def perturb(self, crop: Crop) -> Perturbed:
        """Draw each crop's own changes and make the view."""
        seeds = [
            crop.seed_of_crop(place, _PURPOSE + crop.number) for place in range(len(crop.rows))
        ]
        size = (crop.pixels.shape[1], crop.pixels.shape[2])
        shown = window_mask(crop.window, size)
        with torch.autocast(crop.pixels.device.type, enabled=False):
            planes = crop.pixels.permute(0, 3, 1, 2).to(torch.float32)
            image = planes.contiguous().div_(HIGHEST[crop.pixels.dtype])
            mean, std = (
                torch.tensor(values)[:, None, None].to(image.device, non_blocking=True)
                for values in (self.look.mean, self.look.std)
            )
            changed = change_channels(image, self.settings, std, Draws(seeds, image.device))
            changed = torch.where(shown[:, None], changed, image)
            tps, valid = draw_tps(self.settings, crop) if self.settings.warped else None, None
            if tps is not None:
                x, y = source_positions(tps, size)
                changed, valid = sample_bilinear(changed, x, y), inside(x, y, size, crop.window)
            strong = ((changed - mean) / std).to(self.dtype)
        strong = strong.contiguous(memory_format=torch.channels_last)
        return Perturbed(strong=strong, valid=valid, tps=tps)


def change_channels(image: Tensor, settings: StrongSettings, std: Tensor, draws: Draws) -> Tensor:
    """Change images (n, C, H, W), float32 in [0, 1]; the result is a new tensor.

    settings: `jitter` has the greatest brightness and contrast, `photometric_strength` a factor of
    all changes but the blur's. std: (C, 1, 1), of each channel.
    """
    channels = image.shape[1]
    strength = settings.photometric_strength
    brightness, contrast = (strength * most for most in settings.jitter[:2])
    uniform, gains = draws.uniform(5, 1, 1, 1), draws.uniform(channels, 1, 1)
    signed = 2 * uniform - 1
    low, high = settings.blur_sigma
    blurred = uniform[:, 3] < settings.blur_probability
    sigma = torch.where(blurred, low + (high - low) * uniform[:, 4], 0.0).flatten()
    image = blur_channels(image, sigma, math.ceil(3 * high))
    image = image * (1 + GAIN * strength * (2 * gains - 1)).clamp_min(0)
    mean = image.mean((2, 3), keepdim=True)
    image = mean + (image - mean) * (1 + contrast * signed[:, 1]).clamp_min(0)
    image = image + brightness * signed[:, 0] * std
    noise = torch.stack([_noise(image[row], seed) for row, seed in enumerate(draws.seeds)])
    return (image + noise * (NOISE * strength * uniform[:, 2] * std)).clamp_(0, 1)


def blur_channels(image: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur images (n, C, H, W) by their own standard deviations (n,) in pixels, 0 for none; borders
    are repeated, and the kernel reaches `radius` pixels."""
    count, channels, height, width = image.shape
    distance = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    taps = torch.exp(-0.5 * (distance / sigma.clamp_min(1e-3)[:, None]) ** 2)
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    planes = image.reshape(1, count * channels, height, width)
    planes = F.pad(planes, (radius, radius, radius, radius), mode="replicate")
    planes = F.conv2d(planes, taps[:, None, None, :], groups=count * channels)
    planes = F.conv2d(planes, taps[:, None, :, None], groups=count * channels)
    return planes.view(image.shape)


def _noise(like: Tensor, seed: int) -> Tensor:
    """Return standard normal numbers (C, H, W), drawn where the image lies."""
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=generator, device=like.device)
