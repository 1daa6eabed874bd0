"""The photometric distortion of weak views, for networks of OpenMMLab's recipes (MKD's code).

MMSegmentation's PhotoMetricDistortion, each step for half of the images: brightness is shifted,
contrast multiplied, saturation multiplied and hue shifted in HSV; contrast comes before saturation
for half of the images, and after hue for the others. Its 8-bit HSV counts hue in steps of two
degrees, so that a shift of 18 is a tenth of a turn. Here levels are not rounded between the steps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels.views.photometric import hsv_to_rgb, rgb_to_hsv

BRIGHTNESS = 32 / 255
"""Greatest shift of brightness, of a range of 1."""
FACTOR = (0.5, 1.5)
"""Least and greatest factor of contrast and of saturation."""
HUE = 18 / 180
"""Greatest shift of hue in turns."""


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """Parameters (N,) float32 of N images, in the order in which they act; hue in turns.

    One of the two contrasts is 1; 0 is the neutral shift and 1 the neutral factor.
    """

    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    late_contrast: Tensor


def sample_distortion(batch: int, generator: torch.Generator | None = None) -> Distortion:
    """Draw the parameters of `batch` images on the CPU."""
    low, high = FACTOR
    on = torch.rand(4, batch, generator=generator) < 0.5
    early = torch.rand(batch, generator=generator) < 0.5
    uniform = torch.rand(4, batch, generator=generator)
    shifts, factors = 2 * uniform[:2] - 1, low + (high - low) * uniform[2:]
    contrast = torch.where(on[2], factors[0], 1)
    return Distortion(
        brightness=torch.where(on[0], shifts[0] * BRIGHTNESS, 0),
        contrast=torch.where(early, contrast, 1),
        saturation=torch.where(on[3], factors[1], 1),
        hue=torch.where(on[1], shifts[1] * HUE, 0),
        late_contrast=torch.where(early, 1, contrast),
    )


def distort(image: Tensor, distortion: Distortion) -> Tensor:
    """Distort images (N, 3, H, W) of RGB in [0, 1]; the result is a new tensor like it."""
    parameters = {
        name: value.to(image.device, image.dtype, non_blocking=True)[:, None, None]
        for name, value in vars(distortion).items()
    }
    image = (image + parameters["brightness"][:, None]).clamp(0, 1)
    image = (image * parameters["contrast"][:, None]).clamp_(0, 1)
    hue, saturation, value = rgb_to_hsv(image).unbind(1)
    saturation = (saturation * parameters["saturation"]).clamp_(0, 1)
    image = hsv_to_rgb(torch.stack((hue + parameters["hue"], saturation, value), 1))
    return image.mul_(parameters["late_contrast"][:, None]).clamp_(0, 1)
