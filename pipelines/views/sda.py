"""The strong view "sda": some of 17 operations on the whole image, before scale, crop and flip.

Strong data augmentation of SimpleBaseline (section 2.1, Figure 2; ranges of its released code,
which calls imgaug). No operation moves a pixel, so masks stay as they are. All work on 8-bit RGB
with NumPy and Pillow in the threads that read, so that every loader and device sees the same.
DALI's noise draws from a state that its graph keeps, with no seed for a sample, so that a run could
not resume from its position alone; and the operations come in any order, DALI's between others.

Deviations from imgaug: equalize is Pillow's, by channel, not of the lightness in Lab; salt and
pepper are pure white and black; the blur has no least kernel of 5 pixels.
"""

import io
import math
from collections.abc import Callable
from functools import cache
from statistics import NormalDist

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from ..registry import VIEWS
from ..settings import StrongSettings
from ..strong import View

OFFICIAL = 20 / 39
"""Where in its range the released code takes a magnitude: element 20 of 40."""

_LEVELS = np.arange(256)
_SHARES = (np.arange(2**16) + 0.5) / 2**16
_MOST_POISSON = 64
"""More than a Poisson number of 15 on average ever is: 6e-21 of them reach it."""


_SEED = 6
"""What is drawn at the position of an image."""


class Draws:
    """The random numbers of one image; `official` takes magnitudes at the released code's place.

    The released code draws only what it does not call a magnitude: those keep `uniform`.
    """

    def __init__(self, rng: np.random.Generator, *, official: bool = False) -> None:
        self.rng, self.official = rng, official

    def magnitude(self, low: float, high: float, size: int = 1) -> np.ndarray:
        """Return numbers (size,) from a range of magnitudes."""
        if self.official:
            return np.full(size, low + (high - low) * OFFICIAL)
        return self.uniform(low, high, size)

    def uniform(self, low: float, high: float, size: int = 1) -> np.ndarray:
        """Return numbers (size,) that are always drawn."""
        return self.rng.uniform(low, high, size)

    def pixels(self, *shape: int) -> np.ndarray:
        """Return numbers in [0, 1), float32, one for each pixel."""
        return self.rng.random(shape, np.float32)


Operation = Callable[[np.ndarray, Draws], np.ndarray]
"""Turns an image (H, W, 3) uint8 into another one; the first stays as it is."""


def gamma_contrast(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Raise each channel, in [0, 1], to a power of its own from .5 to 1.5."""
    power = draws.magnitude(0.5, 1.5, 3)[:, None]
    return _mapped(image, 255 * (_LEVELS / 255) ** power)


def linear_contrast(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Stretch each channel about level 127 by a factor of its own from .5 to 2."""
    factor = draws.magnitude(0.5, 2.0, 3)[:, None]
    return _mapped(image, 127 + factor * (_LEVELS - 127))


def brightness(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Add -20 to 50 levels to all channels."""
    return _mapped(image, _LEVELS + draws.magnitude(-20, 50))


def channel_brightness(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Add -20 to 50 levels to each channel."""
    return _mapped(image, _LEVELS + draws.magnitude(-20, 50, 3)[:, None])


def equalize(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Spread the levels of each channel evenly."""
    return np.asarray(ImageOps.equalize(Image.fromarray(image)))


def hue_saturation(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Add -20 to 20 levels to the saturation, and to the hue (256 levels a turn)."""
    # The released code rounds towards 0, so that its constant changes nothing.
    turn, more = np.trunc(draws.magnitude(-20, 20, 2))[:, None]
    table = _lookup(np.stack([(_LEVELS + turn) % 256, _LEVELS + more, _LEVELS]))
    return np.asarray(Image.fromarray(image).convert("HSV").point(table).convert("RGB"))


def swap_channels(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Exchange red and blue ("invert channel")."""
    return np.ascontiguousarray(image[..., ::-1])


def gaussian_blur(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Blur with a standard deviation of 1.5 to 2 pixels (Pillow's: repeated box filters)."""
    (sigma,) = draws.magnitude(1.5, 2.0)
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(float(sigma))))


def gaussian_noise(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Add one normal number to all channels of a pixel, of .03 to .08 of the range."""
    (sigma,) = draws.magnitude(0.03 * 255, 0.08 * 255)
    return _with_noise(image, sigma * _normal_quantiles(), draws)


def poisson_noise(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Add one Poisson number to all channels of a pixel, of 10 to 15 levels on average."""
    (rate,) = draws.magnitude(10, 15)
    levels = np.arange(_MOST_POISSON)
    terms = levels * math.log(rate) - rate - [math.lgamma(level + 1) for level in levels]
    return _with_noise(image, np.searchsorted(np.exp(terms).cumsum(), _SHARES), draws)


def shuffle_channels(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Put the channels into a random order."""
    return np.ascontiguousarray(image[..., draws.rng.permutation(3)])


def dropout(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Set .2 to .5 of all levels to 0, each channel of a pixel by itself."""
    (share,) = draws.uniform(0.2, 0.5)
    return image * (draws.pixels(*image.shape) >= share)


def coarse_dropout(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Set rectangles to 0, .2 of a grid of 2 to 5 by 2 to 5, in each channel by itself."""
    rows, columns = draws.rng.integers(2, 6, 2)
    kept = draws.pixels(rows, columns, 3) >= 0.2
    height, width, _ = image.shape
    down, along = np.arange(height) * rows // height, np.arange(width) * columns // width
    return image * kept[down[:, None], along]


def multiply_channels(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Multiply each channel by a factor of its own from .25 to 2.5."""
    return _mapped(image, _LEVELS * draws.uniform(0.25, 2.5, 3)[:, None])


def salt_and_pepper(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Set 0 to .1 of all levels to 0 or 255, each channel of a pixel by itself."""
    (share,) = draws.uniform(0, 0.1)
    drawn = draws.pixels(*image.shape)
    changed = np.where(drawn < share / 2, np.uint8(0), image)
    return np.where(drawn >= 1 - share / 2, np.uint8(255), changed)


def solarize(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Invert the levels from a threshold on, which lies between 64 and 192."""
    (threshold,) = draws.uniform(64, 192)
    return _mapped(image, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS))


def jpeg_compression(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Compress to a JPEG of quality 5 to 15 (imgaug's compression 85 to 95) and decode it."""
    (compression,) = draws.uniform(85, 95)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=round(100 - compression))
    return np.asarray(Image.open(buffer))


OPERATIONS: dict[str, Operation] = {
    "gamma contrast": gamma_contrast,
    "linear contrast": linear_contrast,
    "brightness": brightness,
    "channel brightness": channel_brightness,
    "equalize": equalize,
    "hue and saturation": hue_saturation,
    "swap channels": swap_channels,
    "blur": gaussian_blur,
    "Gaussian noise": gaussian_noise,
    "Poisson noise": poisson_noise,
    "shuffle channels": shuffle_channels,
    "dropout": dropout,
    "coarse dropout": coarse_dropout,
    "multiply channels": multiply_channels,
    "salt and pepper": salt_and_pepper,
    "solarize": solarize,
    "JPEG compression": jpeg_compression,
}
"""The pool, in the released code's order."""


def choose_operations(settings: StrongSettings, rng: np.random.Generator) -> list[str]:
    """Draw the names of an image's operations, in the order in which they act."""
    count = len(OPERATIONS)
    chosen = rng.choice(count, settings.sda_operations, replace=settings.sda_replacement)
    if settings.sda_order == "pool":
        chosen.sort()
    return [list(OPERATIONS)[number] for number in chosen]


def augment(image: np.ndarray, settings: StrongSettings, seed: int) -> np.ndarray:
    """Return the strong view of an image (H, W, 3) uint8, a function of the seed alone."""
    rng = np.random.default_rng(seed)
    draws = Draws(rng, official=settings.sda_magnitudes == "official")
    for name in choose_operations(settings, rng):
        image = OPERATIONS[name](image, draws)
    return image


def _mapped(image: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Look levels up in tables (3, 256), or in one of 256 for all channels."""
    return np.asarray(Image.fromarray(image).point(_lookup(tables)))


def _lookup(tables: np.ndarray) -> list[int]:
    """Return levels, rounded and clipped, as Pillow wants them: channel after channel."""
    levels = np.rint(tables).clip(0, 255).astype(np.uint8)
    return np.broadcast_to(levels, (3, 256)).ravel().tolist()


def _with_noise(image: np.ndarray, quantiles: np.ndarray, draws: Draws) -> np.ndarray:
    """Add a number to all channels of each pixel, drawn by 65536 quantiles of its law.

    Several times as fast as drawing from the law, and levels are whole numbers anyway.
    """
    table = np.rint(quantiles).astype(np.int16)
    noise = table[draws.rng.integers(len(table), size=image.shape[:2], dtype=np.uint16)]
    return (image + noise[..., None]).clip(0, 255).astype(np.uint8)


@cache
def _normal_quantiles() -> np.ndarray:
    law = NormalDist()
    return np.array([law.inv_cdf(share) for share in _SHARES.tolist()])


@VIEWS.register("sda")
class Sda(View):
    """Some of the operations on the whole image."""

    whole = True

    def change(self, image: np.ndarray, seed: Callable[[int], int]) -> np.ndarray:
        """Change the image by its own seed."""
        return augment(image, self.settings, seed(_SEED))
