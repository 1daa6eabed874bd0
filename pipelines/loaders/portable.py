"""The portable loader: Pillow in threads, wherever DALI is not.

Pillow resamples a window of the source with fractional borders and antialiasing, reading beyond the
window's border where there is image; that is what DALI does with `roi_start` and `roi_end`.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...shards import Sample
from ...shards.bands.bands import PLAIN
from ...shards.bands.resample import resample
from ..views.geometry import Window
from .loading import Loader
from .plan import Crops, Request


class PortableLoader(Loader):
    """Decodes and resamples with Pillow, which lets go of the interpreter's lock while it does."""

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

    def _picture(self, sample: Sample, position: int) -> Image.Image:
        """Return a whole image as Pillow's, without a detour where nothing else wants it."""
        if self._cache is None and self.plan.change is None:
            return sample.read_picture()
        return Image.fromarray(self._image(sample, position))

    def _payload(
        self, sample: Sample, window: Window, canvas: Any, row: int, position: int
    ) -> None:
        top, left, bottom, right = window.region
        height, width = window.shown_size
        box = (left, top, right, bottom)
        if self.plan.bands == PLAIN:
            image = self._picture(sample, position)
            image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
            if window.flip:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            levels = np.asarray(image)
        else:
            levels = resample(self._image(sample, position), (height, width), box)
            levels = levels[:, ::-1] if window.flip else levels
        top, left, bottom, right = window.shown
        canvas[row] = self.plan.fill
        canvas[row, top:bottom, left:right] = levels
