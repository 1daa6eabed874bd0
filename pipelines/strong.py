"""What a strong view is, and how one of one's own is written.

    @device_view("noise")
    def noise(pixels, draws, *, levels: float = 20.0):      pixels (n, H, W, C) uint8, to be kept
        return ...                                          the same, or with valid (n, H, W) bool

    @host_view("grain")
    def grain(image, rng, *, levels: float = 20.0):         one whole image (H, W, C) uint8, NumPy
        return ...                                          the same size

    warpseg train RECIPE --plugin FILE.py --strong.view noise --strong.options levels=30 ...

C is 3, red, green and blue, where the data set's images are not of other channels; those of 16
bits are uint16. Neither moves a pixel: masks stay as they are. What is random is drawn from `draws`
or `rng`, which are functions of (seed, stream, position): the same under every loader, on any
number of ranks, and after a resume.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..kernels import TPS, normalize, window_mask
from ..shards.bands.bands import PLAIN, kind_words
from .normalization import NormalizationSettings
from .registry import VIEWS
from .settings import StrongSettings
from .threads import one_thread

Function = TypeVar("Function", bound=Callable[..., Any])

DEVICE, HOST = 7, 9
"""What views of others draw at a position: on the device (a second view takes 8), and on the
host."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """What a strong view is made from: crops of one rank, and what may be drawn for them.

    pixels (n, H, W, C) uint8, or uint16, and window (n, 4) lie on the device. rows: numbers of the
    crops in the joined batch of all ranks, which has `total`. draws: (n, k) uniform numbers in
    [0, 1) of each crop's position. seed_of_step, seed_of_crop: seeds for a purpose, of the joined
    batch or of one of the crops by its place. number: 0, or 1 for the second view. paired: the
    weak view and the validity are wanted as well.
    """

    pixels: Tensor
    window: Tensor
    rows: tuple[int, ...]
    total: int
    draws: np.ndarray
    seed_of_step: Callable[[int], int]
    seed_of_crop: Callable[[int, int], int]
    number: int = 0
    paired: bool = True

    def generator(self, purpose: int) -> torch.Generator:
        """Return a generator that is the same on all ranks."""
        return torch.Generator().manual_seed(self.seed_of_step(purpose))

    @property
    def own(self) -> Tensor:
        """The rows as a tensor on the CPU, to choose from what is drawn for all ranks."""
        return torch.tensor(self.rows)


@dataclass(frozen=True, kw_only=True)
class Perturbed:
    """A strong view (n, 3, H, W), normalised and channels-last.

    weak: the weak one, where it comes with it. valid: (n, H, W) bool, the pixels that count, where
    they are not those of the window. tps: the warp, if any.
    """

    strong: Tensor
    weak: Tensor | None = None
    valid: Tensor | None = None
    tps: TPS | None = None


class View:
    """A kind of strong view, as a stream makes it; this one changes nothing.

    whole: it changes whole images on the host (`change`), before scale, crop and flip. twice: it
    can be drawn a second time for the same crops. moves: it moves pixels without their masks, and
    is for images that are classified as wholes. any_channels: it is for images of any channels and
    bits, not for RGB of 8 bits alone.
    """

    whole = False
    twice = False
    moves = False
    any_channels = False

    def __init__(
        self, settings: StrongSettings, look: NormalizationSettings, dtype: torch.dtype
    ) -> None:
        """Take the settings. Raise ValueError for options that the view does not have."""
        if settings.options and type(self).check_options is View.check_options:
            raise ValueError(
                f"--strong.options are for views of plugins; {settings.view} has settings by name"
            )
        self.settings, self.look, self.dtype = settings, look, dtype
        self.check_options(settings.parsed_options())

    def check_options(self, options: dict[str, Any]) -> None:
        """Raise ValueError for options that the view does not have."""

    def check_channels(self, kind: tuple[int, int]) -> None:
        """Raise ValueError where the view is for RGB of 8 bits, and images are of another kind,
        channels and bits."""
        if kind != PLAIN and not self.any_channels:
            raise ValueError(
                f"view {self.settings.view} changes hue, saturation or else what RGB of 8 bits "
                f"alone has, and the images have {kind_words(kind)}: choose the view channels, "
                "chtps (with the warp), tps or none, by --strong.view (supervised: "
                "--augmentation.view; warpseg show: --view)"
            )

    def change(self, image: np.ndarray, seed: Callable[[int], int]) -> np.ndarray:
        """Return another image (H, W, 3) uint8 in place of this one; seed(purpose) gives seeds."""
        return image

    def perturb(self, crop: Crop) -> Perturbed:
        """Make the strong view of crops."""
        return Perturbed(strong=self.normalized(crop.pixels))

    def normalized(self, pixels: Tensor) -> Tensor:
        """Return crops (n, H, W, C) as the network wants them."""
        with one_thread(pixels.device):
            return normalize(pixels, self.look.mean, self.look.std, self.dtype)


class Draws:
    """Random numbers of n crops: each crop's are those of its position, whatever the others are."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.seeds, self.device = tuple(seeds), device
        self._generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def uniform(self, *shape: int) -> Tensor:
        """Draw numbers in [0, 1): (n, *shape) float32 on the crops' device. They are drawn on the
        CPU: a few for each crop are cheap, one for each pixel is slow."""
        return self._drawn(torch.rand, shape)

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers, as `uniform`."""
        return self._drawn(torch.randn, shape)

    def _drawn(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        numbers = torch.stack([draw(shape, generator=g) for g in self._generators])
        return numbers.to(self.device, non_blocking=True)


class FunctionView(View):
    """A view that is a function of one's own, with its keyword arguments as options."""

    any_channels = True
    function: Callable[..., Any]

    def check_options(self, options: dict[str, Any]) -> None:
        """Raise ValueError for a keyword that the function does not have."""
        parameters = inspect.signature(self.function).parameters.values()
        known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        for name in options:
            if name not in known:
                raise ValueError(
                    f"view {self.settings.view} has no option {name!r}; it has: "
                    f"{', '.join(known) or 'none'}"
                )
        self.options = options


class DeviceView(FunctionView):
    """A function of the crops on the device."""

    twice = True

    def perturb(self, crop: Crop) -> Perturbed:
        """Call the function. Raise ValueError where it returns something else than it should."""
        purpose = DEVICE + crop.number
        seeds = [crop.seed_of_crop(place, purpose) for place in range(len(crop.rows))]
        draws = Draws(seeds, crop.pixels.device)
        made = self.function(crop.pixels.clone(), draws, **self.options)
        pixels, valid = made if isinstance(made, tuple) else (made, None)
        _check(self.settings.view, pixels, crop.pixels.shape, crop.pixels.dtype)
        if valid is not None:
            _check(f"{self.settings.view}'s validity", valid, crop.pixels.shape[:3], torch.bool)
            valid = valid & window_mask(crop.window, (pixels.shape[1], pixels.shape[2]))
        return Perturbed(strong=self.normalized(pixels), valid=valid)


class HostView(FunctionView):
    """A function of whole images on the host."""

    whole = True

    def change(self, image: np.ndarray, seed: Callable[[int], int]) -> np.ndarray:
        """Call the function. Raise ValueError where it returns something else than it should."""
        made = self.function(image.copy(), np.random.default_rng(seed(HOST)), **self.options)
        _check(self.settings.view, made, image.shape, image.dtype)
        return made


def device_view(name: str) -> Callable[[Function], Function]:
    """Return a decorator that registers a function of crops (n, H, W, 3) uint8 and `Draws`."""
    return _registering(name, DeviceView)


def host_view(name: str) -> Callable[[Function], Function]:
    """Return a decorator that registers a function of an image (H, W, 3) uint8 and a generator of
    NumPy's. It runs in the threads that read, for some of the images at once."""
    return _registering(name, HostView)


def build_view(settings: StrongSettings, look: NormalizationSettings, dtype: torch.dtype) -> View:
    """Return the strong view of the settings. Raise ValueError for options it does not have."""
    return VIEWS.find(settings.view)(settings, look, dtype)


def _registering(name: str, kind: type[FunctionView]) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        VIEWS.add(name, type(kind.__name__, (kind,), {"function": staticmethod(function)}))
        return function

    return decorate


def _check(what: str, made: Any, shape: Sequence[int], dtype: Any) -> None:
    found = getattr(made, "dtype", None)
    if found != dtype or tuple(made.shape) != tuple(shape):
        size = tuple(getattr(made, "shape", ()))
        raise ValueError(
            f"view {what} must be {tuple(shape)} {dtype}; got {type(made).__name__} {size} {found}"
        )
