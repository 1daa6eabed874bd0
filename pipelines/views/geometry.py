"""The weak geometry: one window per sample, drawn once for image, mask, label and confidence.

Resizing the whole image and cropping it afterwards costs about three times as much as mapping the
crop's window back to the source and resampling only that. Both give the same pixels: pixel i of an
axis of the scaled image lies at (i + .5) source / scaled - .5 of the source (half-pixel centres).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..settings import GeometrySettings

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A crop of a scaled, perhaps mirrored image; every pair is (vertical, horizontal).

    crop: size of the crop; source: size of the stored image; scaled: its size after scaling;
    origin: the crop's first pixel in the scaled image, negative where the crop begins outside; all
    in pixels. flip: whether the crop is mirrored left to right.
    """

    crop: Size
    source: Size
    scaled: Size
    origin: Size
    flip: bool

    @cached_property
    def shown(self) -> tuple[int, int, int, int]:
        """The part of the crop that shows the image: [top, left, bottom, right) in pixels."""
        (top, bottom), (left, right) = (
            (max(-start, 0), min(size, length - start))
            for start, size, length in zip(self.origin, self.crop, self.scaled, strict=True)
        )
        width = self.crop[1]
        return (
            (top, width - right, bottom, width - left) if self.flip else (top, left, bottom, right)
        )

    @property
    def shown_size(self) -> Size:
        """Height and width of the shown part."""
        top, left, bottom, right = self.shown
        return bottom - top, right - left

    @cached_property
    def region(self) -> tuple[float, float, float, float]:
        """The part of the source that is shown: (top, left, bottom, right) in source pixels."""
        first = [max(start, 0) for start in self.origin]
        scale = [s / t for s, t in zip(self.source, self.scaled, strict=True)]
        (top, left), (bottom, right) = (
            [value * factor for value, factor in zip(values, scale, strict=True)]
            for values in (first, [a + b for a, b in zip(first, self.shown_size, strict=True)])
        )
        return top, left, bottom, right

    @cached_property
    def needed(self) -> tuple[int, int, int, int]:
        """The source pixels that antialiased resampling reads: [top, left, bottom, right)."""
        halo = [max(1.0, s / t) + 2 for s, t in zip(self.source, self.scaled, strict=True)]
        top, left, bottom, right = self.region
        return (
            max(0, math.floor(top - halo[0])),
            max(0, math.floor(left - halo[1])),
            min(self.source[0], math.ceil(bottom + halo[0])),
            min(self.source[1], math.ceil(right + halo[1])),
        )

    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the source row of each shown row and the source column of each shown column."""
        # (i + .5) source / scaled, rounded down, in integers: floats would err at the borders.
        rows, columns = (
            (2 * (np.arange(count) + max(start, 0)) + 1) * s // (2 * t)
            for count, start, s, t in zip(
                self.shown_size, self.origin, self.source, self.scaled, strict=True
            )
        )
        return rows, columns[::-1] if self.flip else columns


def draw_window(settings: GeometrySettings, source: Size, draws: np.ndarray) -> Window:
    """Turn four uniform numbers into the window of an image of size `source` (pixels).

    An image that is smaller than the crop lies wholly in it, at a random place.
    """
    scale_draw, vertical, horizontal, flip = draws.tolist()
    base = settings.resize or source
    scale = draw_scale(settings, scale_draw) * _bound_scale(settings, source)
    scaled = scaled_size(base, scale)
    origin = []
    for length, size, draw in zip(scaled, settings.crop_size, (vertical, horizontal), strict=True):
        padding = min(settings.padding, length - 1)
        low, high = min(0, length - size) - padding, max(0, length - size) + padding
        origin.append(low + int(draw * (high - low + 1)))
    return Window(
        crop=settings.crop_size,
        source=source,
        scaled=scaled,
        origin=(origin[0], origin[1]),
        flip=flip < settings.flip,
    )


def draw_windows(
    settings: GeometrySettings, sources: np.ndarray, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Do what `draw_window` does for a batch: sources (N, 2) int64, draws (N, 4).

    Returns scaled (N, 2) int64, origin (N, 2) int64 and flip (N,) bool, as in `Window`.
    """
    base = np.broadcast_to(settings.resize or sources, sources.shape)
    scale = np.array([draw_scale(settings, draw) for draw in draws[:, 0].tolist()])
    scale *= [_bound_scale(settings, source) for source in sources.tolist()]
    scaled = np.rint(base * scale[:, None]).astype(np.int64).clip(1)
    spare = scaled - np.array(settings.crop_size)
    padding = np.minimum(settings.padding, scaled - 1)
    low, high = spare.clip(None, 0) - padding, spare.clip(0) + padding
    origin = low + (draws[:, 1:3] * (high - low + 1)).astype(np.int64)
    return scaled, origin, draws[:, 3] < settings.flip


def draw_scale(settings: GeometrySettings, draw: float) -> float:
    """Turn a uniform number into a factor of `settings.scale` under its distribution."""
    low, high = settings.scale
    if settings.scale_distribution == "log_uniform":
        return low * (high / low) ** draw
    if settings.scale_distribution == "balanced":
        return low + (1 - low) * 2 * draw if draw < 0.5 else 1 + (high - 1) * (2 * draw - 1)
    return low + (high - low) * draw


def bound_scale(size: Sequence[int], bound: Size) -> float:
    """Return the factor by which an image just fits into a bound.

    Its short edge is then at most the bound's shorter length, its long edge at most the longer one.
    """
    return min(min(bound) / min(size), max(bound) / max(size))


def scaled_size(size: Size, scale: float) -> Size:
    """Return height and width in pixels of an image of a size, scaled; at least 1."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _bound_scale(settings: GeometrySettings, source: Sequence[int]) -> float:
    return 1.0 if settings.bound is None else bound_scale(source, settings.bound)
