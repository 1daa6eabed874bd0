"""The colour views: jitter, grayscale and blur of a crop, drawn per sample.

View "colour" draws each of the three by itself, view "mkd" exactly one of them, equalize and
solarize (MKD section 3.2; weights and ranges of its code, whose channels came in reverse order).

Brightness, contrast, saturation and hue are linear in RGB (hue as a rotation about the grey axis in
YIQ), so that all four and the loss of colour are one matrix per sample: y = clip(M x + t, 0, 1).
Contrast turns about the crop's mean grey. Torchvision's ColorJitter clips after each change and
rotates the hue in HSV; the matrix costs a fraction of that, on any device, under any loader.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...kernels.window import window_mask
from ..normalization import NormalizationSettings
from ..registry import VIEWS
from ..settings import StrongSettings
from ..strong import Crop, Perturbed, View
from ..threads import one_thread
from .levels import Levels, change_levels

OPERATIONS = {"jitter": 0.3, "blur": 0.5, "equalize": 0.1, "solarize": 0.1, "grayscale": 0.5}
"""The operations of view "mkd", with weights that need not add up to 1."""
BLUR_RADII = (1, 2, 3)
"""Pixels that a blur of view "mkd" reaches: kernels of 3, 5 or 7."""
LUMA = (0.299, 0.587, 0.114)
_YIQ = np.array([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
"""Luma and two chromas whose weights sum to 0, so that grey has none."""
_RGB = np.linalg.inv(_YIQ)
_SECOND = 10
"""What a second view draws at a position."""
_GROUP = 4
"""Pixels of one row of the matrix product: 12 x 12 fills vector registers, 3 x 3 does not."""
_BAND = 64
"""Rows that a CPU blurs at once."""


@dataclass(frozen=True, kw_only=True)
class Colour:
    """Parameters of one sample; the neutral ones change nothing.

    brightness, contrast, saturation: factors; hue: turns; blur: standard deviation in pixels, 0 for
    none; blur_radius: pixels that it reaches; levels: what becomes of them before all else.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    blur: float = 0.0
    blur_radius: float = math.inf
    levels: Levels = "kept"


@VIEWS.register("colour")
@VIEWS.register("mkd")
class ColourView(View):
    """Colours alone, without a kernel; of view "mkd" none beyond the window."""

    twice = True

    def perturb(self, crop: Crop) -> Perturbed:
        """Turn each crop's own draws into a change of its colours; the weak view comes with it."""
        colours = [draw_colour(self.settings, row) for row in self._draws(crop)]
        shown = crop.window if self.settings.view == "mkd" else None
        with one_thread(crop.pixels.device):
            weak, strong = colour_views(crop.pixels, colours, self.look, self.dtype, shown)
        return Perturbed(strong=strong, weak=weak)

    def _draws(self, crop: Crop) -> np.ndarray:
        """Return eight numbers of each crop; its position has eight, which the first view takes."""
        if crop.number == 0:
            return crop.draws
        seeds = [crop.seed_of_crop(place, _SECOND) for place in range(len(crop.rows))]
        return np.stack([np.random.default_rng(seed).random(8) for seed in seeds])


def draw_colour(settings: StrongSettings, draws: np.ndarray) -> Colour:
    """Turn eight uniform numbers into the parameters of a sample."""
    first, *changes, second, third, width = draws.tolist()
    factors = zip(settings.jitter[:3], changes[:3], strict=True)
    brightness, contrast, saturation = (1 + most * (2 * draw - 1) for most, draw in factors)
    jitter = Colour(
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=settings.jitter[3] * (2 * changes[3] - 1),
    )
    low, high = settings.blur_sigma
    sigma = low + (high - low) * width
    if settings.view == "mkd":
        radius = BLUR_RADII[int(third * len(BLUR_RADII))]
        choices = {
            "jitter": jitter,
            "blur": Colour(blur=sigma, blur_radius=radius),
            "equalize": Colour(levels="equalize"),
            "solarize": Colour(levels="solarize"),
            "grayscale": Colour(saturation=0.0),
        }
        ends = np.cumsum(list(OPERATIONS.values()))
        return choices[list(OPERATIONS)[int(np.searchsorted(ends, first * ends[-1], "right"))]]
    colour = jitter if first < settings.jitter_probability else Colour()
    if second < settings.grayscale_probability:
        colour = replace(colour, saturation=0.0)
    return replace(colour, blur=sigma) if third < settings.blur_probability else colour


def matrix_of(colour: Colour) -> np.ndarray:
    """Return the (3, 3) matrix of brightness, contrast, saturation and hue, in that order."""
    angle = 2 * math.pi * colour.hue
    rotation = np.eye(3)
    rotation[1:, 1:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    scale = np.diag([1.0, colour.saturation, colour.saturation])
    return colour.brightness * colour.contrast * (_RGB @ rotation @ scale @ _YIQ)


def colour_views(
    crop: Tensor,
    colours: list[Colour],
    normalization: NormalizationSettings,
    dtype: torch.dtype = torch.float32,
    window: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Make the normalised weak and colour view of crops (N, H, W, 3) uint8.

    Returns two (N, 3, H, W) tensors of `dtype`, channels-last. With a window (N, 4), as in
    PairedBatch, the colours outside stay and count for no histogram of levels; levels need one.
    """
    batch, height, width, _ = crop.shape
    source = crop
    if window is not None:
        source = change_levels(crop, [colour.levels for colour in colours], window)
    mean, std = np.array(normalization.mean), np.array(normalization.std)
    shift, scale, lowest, highest = (
        _tensor(v, crop).repeat(width)
        for v in (-mean / std, 1 / (255 * std), -mean / std, (1 - mean) / std)
    )
    weak, strong = (
        torch.empty(batch, height, width * 3, dtype=dtype, device=crop.device) for _ in range(2)
    )
    # One image at a time stays within a CPU's cache; a GPU wants few launches.
    group = batch if crop.is_cuda else 1
    with torch.autocast(crop.device.type, enabled=False):
        for first in range(0, batch, group):
            part = slice(first, first + group)
            rows = crop[part].reshape(-1, height, width * 3).float()
            torch.addcmul(shift, rows, scale, out=weak[part])
            if source is not crop:
                rows = source[part].reshape(-1, height, width * 3).float()
            rows = blur(rows, colours[part])
            room = strong[part] if dtype == torch.float32 else None
            rows = _change(rows, colours[part], mean, std, room)
            torch.clamp(rows, lowest, highest, out=strong[part])
    weak, strong = (v.view(batch, height, width, 3).permute(0, 3, 1, 2) for v in (weak, strong))
    if window is not None:
        strong = torch.where(window_mask(window, (height, width))[:, None], strong, weak)
    return weak, strong


def blur(rows: Tensor, colours: list[Colour]) -> Tensor:
    """Blur images (N, H, 3 W), rows of interleaved channels, by N widths; borders are repeated."""
    _, height, length = rows.shape
    reach = max(min(math.ceil(3 * colour.blur), colour.blur_radius) for colour in colours)
    radius = int(min(reach, height - 1, length // 3 - 1))
    if radius < 1:
        return rows
    distances = np.arange(radius + 1)
    widths = np.array([max(colour.blur, 1e-3) for colour in colours])[:, None]
    reaches = np.array([colour.blur_radius for colour in colours])[:, None]
    weights = np.exp(-0.5 * (distances / widths) ** 2) * (distances <= reaches)
    weights /= weights[:, :1] + 2 * weights[:, 1:].sum(1, keepdims=True)
    taps = _tensor(weights.T[:, :, None, None], rows)
    ends = rows[:, :1].expand(-1, radius, -1), rows[:, -1:].expand(-1, radius, -1)
    padded = torch.cat([ends[0], rows, ends[1]], dim=1)
    # A band of rows stays within a CPU's cache from tap to tap.
    band = height if rows.is_cuda else _BAND
    blurred = []
    for top in range(0, height, band):
        rows = padded[:, top : top + band + 2 * radius]
        rows = _convolve(rows, taps, rows.shape[1] - 2 * radius, axis=1, step=1)
        sides = rows[..., :3].repeat(1, 1, radius), rows[..., -3:].repeat(1, 1, radius)
        rows = torch.cat([sides[0], rows, sides[1]], dim=2)
        blurred.append(_convolve(rows, taps, length, axis=2, step=3))
    return blurred[0] if len(blurred) == 1 else torch.cat(blurred, dim=1)


def _convolve(padded: Tensor, taps: Tensor, length: int, *, axis: int, step: int) -> Tensor:
    """Sum shifted copies along an axis; tap k (N, 1, 1) weighs those k steps away."""
    radius = len(taps) - 1
    total = padded.narrow(axis, radius * step, length) * taps[0]
    for distance in range(1, radius + 1):
        for place in (radius - distance, radius + distance):
            total.addcmul_(padded.narrow(axis, place * step, length), taps[distance])
    return total


def _change(
    rows: Tensor, colours: list[Colour], mean: np.ndarray, std: np.ndarray, room: Tensor | None
) -> Tensor:
    """Change colours and normalise: (N, H, 3 W) levels to network inputs, in `room` if given."""
    matrices = np.stack([matrix_of(colour) for colour in colours]) / (255 * std[:, None])
    # Contrast turns about the mean grey after the change of brightness, on a grid of every fourth
    # pixel; grey stays grey under the matrix.
    turns = np.array([c.brightness * (1 - c.contrast) / 255 for c in colours])
    count, height, length = rows.shape
    grid = rows.view(count, height, -1, 3)[:, ::4, ::4].reshape(count, -1, 3)
    grey = (grid.mean(1) * _tensor(LUMA, rows)).sum(1) * _tensor(turns, rows)
    offset = _tensor(-mean / std, rows) + grey[:, None] * _tensor(1 / std, rows)
    group = math.gcd(_GROUP, height * length // 3)
    weights = np.stack([np.kron(np.eye(group), matrix.T) for matrix in matrices])
    pixels = rows.view(count, -1, 3 * group)
    out = None if room is None else room.view(pixels.shape)
    offset = offset.repeat(1, group)[:, None]
    changed = torch.baddbmm(offset, pixels, _tensor(weights, rows), out=out)
    return changed.view(count, height, length)


def _tensor(values: np.ndarray | tuple[float, ...], like: Tensor) -> Tensor:
    """Return float32 values on the device of another tensor."""
    return torch.tensor(np.asarray(values, np.float32)).to(like.device, non_blocking=True)
