"""The portable loader: Pillow in threads, wherever DALI is not.

Pillow resamples a window of the source with fractional borders and antialiasing, reading beyond the
window's border where there is image; that is what DALI does with `roi_start` and `roi_end`. JPEGs
may come decoded by TorchCodec, of whose pixels Pillow is given those around the window alone.
"""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...shards import Sample
from ...shards.bands.bands import PLAIN
from ...shards.bands.resample import resample
from ..settings import LoaderSettings
from ..views.geometry import Window
from .jpeg import INSTALL, decoder, read_jpeg
from .loading import Loader
from .plan import Crops, Plan, Request

Box = tuple[float, float, float, float]
"""Left, top, right and bottom border in pixels of an image."""


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

    def _resized(
        self, sample: Sample, position: int, size: tuple[int, int], box: Box
    ) -> Image.Image:
        """Return a box of an RGB image at a size (height, width)."""
        levels, rows = None, math.ceil(box[3]) + _reach(size, box)
        if self._cache is not None or self.plan.change is not None:
            levels = self._image(sample, position)
        elif self.settings.jpeg == "torchcodec":
            levels = read_jpeg(sample)
        picture = sample.read_picture(rows) if levels is None else _around(levels, size, box)
        return picture.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)

    def _payload(
        self, sample: Sample, window: Window, canvas: Any, row: int, position: int
    ) -> None:
        top, left, bottom, right = window.region
        height, width = window.shown_size
        box = (left, top, right, bottom)
        if self.plan.bands == PLAIN:
            image = self._resized(sample, position, (height, width), box)
            if window.flip:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            levels = np.asarray(image)
        else:
            levels = resample(self._image(sample, position), (height, width), box)
            levels = levels[:, ::-1] if window.flip else levels
        top, left, bottom, right = window.shown
        crop = canvas[row]
        for beside in (crop[:top], crop[bottom:], crop[:, :left], crop[:, right:]):
            beside[:] = self.plan.fill
        crop[top:bottom, left:right] = levels


def _around(levels: np.ndarray, size: tuple[int, int], box: Box) -> Image.Image:
    """Return Pillow's image of levels, of which it holds what resampling a box to a size reads."""
    left, top, right, bottom = box
    reach = _reach(size, box)
    first, above = max(math.floor(left) - reach, 0), max(math.floor(top) - reach, 0)
    part = levels[above : math.ceil(bottom) + reach, first : math.ceil(right) + reach]
    # Of its full size, as `Sample.read_picture` says. The rest is never touched.
    picture = Image.new("RGB", (levels.shape[1], levels.shape[0]), None)
    picture.paste(Image.fromarray(part), (first, above))
    return picture


def _reach(size: tuple[int, int], box: Box) -> int:
    """Return how many pixels beyond a box are read where it is resampled to a size."""
    left, top, right, bottom = box
    return 2 + math.ceil(max((bottom - top) / size[0], (right - left) / size[1], 1))
