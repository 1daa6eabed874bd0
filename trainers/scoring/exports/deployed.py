"""A network as others run it: pixels in as an image file has them, logits out at the image's
size."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....pipelines.normalization import NormalizationSettings
from ..inference import Size
from ..trained import TrainedNetwork


class DeployedNetwork(nn.Module):
    """A network with its normalisation in front and its logits brought to the image's size.

    Bytes in the layout of pictures leave nothing to be guessed: another layout, order of axes or
    range is another shape or type, and refused.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        normalization: NormalizationSettings,
        *,
        align_corners: bool = False,
        highest: int = 255,
    ) -> None:
        super().__init__()
        self.network = network
        self.align_corners, self.highest = align_corners, highest
        self.whole = getattr(network, "task", "segmentation") == "classification"
        for name in ("mean", "std"):
            value = torch.tensor(getattr(normalization, name))[:, None, None]
            self.register_buffer(name, value, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, float32 (N, C, H, W), of RGB images, uint8 (N, H, W, 3), or of images of
        the network's own channels, uint8 or uint16, whose `highest` level is 1.

        Of networks that classify whole images they are (N, C).
        """
        height, width = image.shape[1], image.shape[2]
        pixels = image.permute(0, 3, 1, 2).float() / self.highest
        logits = self.network((pixels - self.mean) / self.std)
        if self.whole:
            return logits.flatten(1)
        if self.align_corners:
            return F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=True)
        # As `kernels.upsample`, by the network's own stride: no question is asked of the size.
        stride = float(cast(Any, self.network).output_stride)
        if stride > 1:
            logits = F.interpolate(logits, scale_factor=stride, mode="bilinear")
        return logits.narrow(2, 0, height).narrow(3, 0, width)


def deploy(trained: TrainedNetwork) -> DeployedNetwork:
    """Return a trained network as others run it, in evaluation mode."""
    align = trained.evaluation.align_corners
    highest = 255 if trained.channels is None else trained.channels.highest
    look = trained.normalization
    deployed = DeployedNetwork(trained.network, look, align_corners=align, highest=highest)
    deployed.eval().requires_grad_(False)
    # Graphs are stored with plain weights: torch.export warns of channels-last ones.
    return deployed.to(memory_format=torch.contiguous_format)  # pyright: ignore


def draw_images(size: Size, images: int = 2, channels: int = 3, bits: int = 8) -> Tensor:
    """Return images of noise to try a graph with, uint8 or uint16 (N, H, W, channels)."""
    generator = torch.Generator().manual_seed(0)
    shape = (images, *size, channels)
    if bits == 8:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return torch.randint(0, 2**bits, shape, generator=generator).to(torch.uint16)


def check_close(found: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    """Raise RuntimeError where logits differ by more than a share of the greatest of them."""
    if found.shape != wanted.shape:
        raise RuntimeError(f"{what} returns logits {tuple(found.shape)}, not {tuple(wanted.shape)}")
    error, greatest = (found - wanted).abs().max().item(), wanted.abs().max().item()
    if not error <= tolerance * max(greatest, 1.0):
        raise RuntimeError(f"{what} differs from the network by {error:.3g} in its logits")
