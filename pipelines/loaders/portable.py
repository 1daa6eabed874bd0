"""The portable loader: Pillow in threads, wherever DALI is not.

Pillow resamples a window of the source with fractional borders and antialiasing, reading beyond the
window's border where there is image; that is what DALI does with `roi_start` and `roi_end`. It
decodes JPEGs and PNGs no further down than that. JPEGs may come whole, by TorchCodec, of whose
pixels Pillow is given those around the window alone.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...shards import Sample
from ...shards.bands.bands import PLAIN
from ...shards.bands.resample import resample
from ...shards.window import window_of
from ..settings import LoaderSettings
from ..views.geometry import Window
from .jpeg import INSTALL, decoder, read_jpeg
from .loading import Loader
from .plan import Crops, Plan, Request


class PortableLoader(Loader):
    """Decodes and resamples with libraries that let go of the interpreter's lock while they do."""

    def __init__(
        self, plan: Plan, settings: LoaderSettings, stride: int, device: torch.device
    ) -> None:
        if settings.jpeg == "torchcodec" and decoder() is None:
            raise RuntimeError(
                f"--loader.jpeg torchcodec needs a TorchCodec with Pillow's pixels: {INSTALL}; or "
                "leave --loader.jpeg pillow"
            )
        super().__init__(plan, settings, stride, device)

    def load(self, position: int) -> Crops:
        """Return the batch at `position`; the image is on the CPU."""
        if position not in self._pending:
            self._forget()
        return self._collect(position)[0]

    def _canvas(self, request: Request) -> Tensor:
        channels, bits = self.plan.bands
        dtype = torch.uint8 if bits == 8 else torch.uint16
        crop = self.plan.geometry.crop_size
        return self._room(len(request.samples), *crop, channels, dtype=dtype)

    def _resized(self, sample: Sample, position: int, window: Window) -> Image.Image:
        """Return what a window shows of an RGB image, at the size of the crop."""
        levels = None
        if self._cache is not None or self.plan.change is not None:
            levels = self._image(sample, position)
        elif self.settings.jpeg == "torchcodec":
            levels = read_jpeg(sample)
        if levels is None:
            picture = sample.read_picture(window.needed)
        else:
            picture = window_of(levels, window.needed)
        height, width = window.shown_size
        return picture.resize((width, height), Image.Resampling.BILINEAR, box=_box(window))

    def _payload(
        self, sample: Sample, window: Window, canvas: Any, row: int, position: int
    ) -> None:
        if self.plan.bands == PLAIN:
            image = self._resized(sample, position, window)
            if window.flip:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            levels = np.asarray(image)
        else:
            levels = resample(self._image(sample, position), window.shown_size, _box(window))
            levels = levels[:, ::-1] if window.flip else levels
        top, left, bottom, right = window.shown
        crop = canvas[row]
        for beside in (crop[:top], crop[bottom:], crop[:, :left], crop[:, right:]):
            beside[:] = self.plan.fill
        crop[top:bottom, left:right] = levels


def _box(window: Window) -> tuple[float, float, float, float]:
    """Return the left, top, right and bottom border of what a window shows, in source pixels."""
    top, left, bottom, right = window.region
    return left, top, right, bottom
