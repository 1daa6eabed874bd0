"""The portable loader: Pillow in threads, wherever DALI is not.

Pillow resamples a window of the source with fractional borders and antialiasing, reading beyond the
window's border where there is image; that is what DALI does with `roi_start` and `roi_end`.
"""

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ...shards import Sample
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
        return self._room(len(request.samples), *self.plan.geometry.crop_size, 3)

    def _picture(self, sample: Sample, position: int) -> Image.Image:
        """Return a whole image as Pillow's, without a detour where nothing else wants it."""
        if self._cache is None and self.plan.change is None:
            return sample.read_picture()
        return Image.fromarray(self._image(sample, position))

    def _payload(
        self, sample: Sample, window: Window, canvas: Any, row: int, position: int
    ) -> None:
        image = self._picture(sample, position)
        top, left, bottom, right = window.region
        height, width = window.shown_size
        image = image.resize(
            (width, height), Image.Resampling.BILINEAR, box=(left, top, right, bottom)
        )
        if window.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        top, left, bottom, right = window.shown
        canvas[row] = self.plan.fill
        canvas[row, top:bottom, left:right] = np.asarray(image)
