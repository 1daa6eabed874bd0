"""Crops that are centred on a class, so that rare ones are seen as often as common ones.

A share of a stream's positions show, in place of their image, one with a pixel of a class that is
drawn by its rarity, by the Rare Class Sampling of DAFormer (Hoyer, Dai, Van Gool 2022, Eq. 7):

    P(c) ~ exp((1 - f_c) / T),    f_c: the class's share of the labeled pixels

then one of the images that show it, all alike, and one of its pixels; the crop holds that pixel in
its middle half. Counts of each image come from the data set's manifest. Like all that is drawn, it
is a function of (seed, stream, position); the other positions keep their images and crops.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ... import UNLABELED
from ..views.geometry import Window
from .sampling import Sampler

_PURPOSE = 11
"""What is drawn at a position; strong views and distortions take the numbers before."""


@dataclass(frozen=True, kw_only=True)
class FocusSettings:
    """How many labeled crops are centred on a class, and on which."""

    share: float = 0.0
    """share of the crops, in [0, 1]"""
    temperature: float = 0.01
    """T: a lower one draws the rarest classes alone, a high one all alike"""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"the share of class-centred crops lies in [0, 1]; got {self.share}")
        if self.temperature <= 0:
            raise ValueError(f"the temperature must be above 0; got {self.temperature}")


@dataclass(frozen=True)
class FocusDraw:
    """What a position shows in place of its image: a sample, by its index; one of the pixels of a
    class there, by a number in [0, 1); and where in the crop it lies, down and across."""

    index: int
    label: int
    pixel: float
    at: tuple[float, float]


class Focus:
    """Draws what class-centred positions show."""

    def __init__(
        self, settings: FocusSettings, counts: Sequence[Mapping[int, int]], sampler: Sampler
    ) -> None:
        self._share, self._sampler = settings.share, sampler
        self._images: dict[int, list[int]] = {}
        totals: dict[int, int] = {}
        for index, image in enumerate(counts):
            for label, pixels in image.items():
                if label < UNLABELED and pixels:
                    self._images.setdefault(label, []).append(index)
                    totals[label] = totals.get(label, 0) + pixels
        self.classes = sorted(totals)
        frequency = np.array([totals[label] for label in self.classes], np.float64)
        share = frequency / max(frequency.sum(), 1)
        # The least share in place of 1, which a low temperature would make infinite.
        chance = np.exp((share.min(initial=1) - share) / settings.temperature)
        self.chances = chance / chance.sum() if len(chance) else chance

    def at(self, position: int) -> FocusDraw | None:
        """Return what a position shows, or None where it keeps its image."""
        draw = np.random.default_rng(self._sampler.seed_at(position, _PURPOSE)).random(6)
        if draw[0] >= self._share or not self.classes:
            return None
        place = int(np.searchsorted(self.chances.cumsum(), draw[1], side="right"))
        label = self.classes[min(place, len(self.classes) - 1)]
        images = self._images[label]
        index = images[int(draw[2] * len(images))]
        return FocusDraw(index, label, draw[3], (0.25 + draw[4] / 2, 0.25 + draw[5] / 2))


def centred(
    window: Window, pixel: tuple[int, int] | None, at: tuple[float, float], padding: int = 0
) -> Window:
    """Move a window so that a source pixel (row, column) lies at a place of the crop, in shares of
    its height and width; as near as the image's borders, and the padding, let it.

    Where there is no such pixel, or the whole image is in the crop, the window stays.
    """
    if pixel is None:
        return window
    origin = []
    for start, size, length, source, place, share in zip(
        window.origin, window.crop, window.scaled, window.source, pixel, at, strict=True
    ):
        if length <= size:
            origin.append(start)
            continue
        spare = min(padding, length - 1)
        wanted = round((place + 0.5) * length / source - share * size)
        origin.append(min(max(wanted, -spare), length - size + spare))
    return replace(window, origin=(origin[0], origin[1]))
