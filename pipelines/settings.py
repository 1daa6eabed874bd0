"""Settings of the pipelines: geometry, strong view, loader (normalisation: `normalization.py`).

Frozen keyword-only dataclasses, validated when made; their docstrings are the help of the command
line.
"""

import os
from dataclasses import dataclass
from typing import Any, Literal

from .. import IGNORE
from ..plain import environment_number
from .registry import VIEWS

OWN_VIEWS = (
    *("phtps", "ph", "tps", "colour", "mkd", "sda", "randaugment", "none"),
    *("channels", "chtps"),
)
"""Strong views of this package, which settings know without loading them: photometric change and
thin-plate-spline warp, either alone, colours, operations on the whole image or on small crops,
none, or changes of each channel, with or without the warp."""
SDA_POOL = 17
"""Operations that view sda draws from."""


@dataclass(frozen=True, kw_only=True)
class GeometrySettings:
    """Weak view: scale, crop and flip, drawn once per sample for image and mask alike."""

    crop_size: tuple[int, int] = (256, 256)
    """Height and width of the crop in pixels."""
    resize: tuple[int, int] | None = None
    """Height and width to which every source image is brought before it is scaled (half-resolution
    Cityscapes: 512 1024); None keeps its own size."""
    bound: tuple[int, int] | None = None
    """Short and long edge, in pixels, that every source image is enlarged or shrunk to fit, its
    shape kept, before it is scaled (MKD on VOC: 512 512); in one resampling with the scale."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Least and greatest factor by which the image is scaled before the crop."""
    scale_distribution: Literal["uniform", "log_uniform", "balanced"] = "uniform"
    """How the factor is drawn; balanced: half of the draws below 1, half above."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    padding: int = 0
    """Pixels by which the crop may reach over each border of the scaled image (CIFAR-10: 4)."""
    fill: tuple[int, int, int] | None = None
    """RGB levels (0 to 255) of the padding; None takes the mean colour of the normalisation."""
    padding_class: int | None = None
    """Class that true masks have in the padding; None ignores it (GTA-Seg's released code: 0, the
    background of VOC)."""

    def __post_init__(self) -> None:
        _check_size("crop_size", self.crop_size)
        if self.resize is not None:
            _check_size("resize", self.resize)
        if self.bound is not None:
            _check_size("bound", self.bound, "a short and a long edge")
        if self.resize is not None and self.bound is not None:
            raise ValueError(
                "resize and bound both say how large images are before they are scaled: leave one "
                f"None; got {self.resize} and {self.bound}"
            )
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale must be two factors, 0 < least <= greatest; got {self.scale}")
        if self.scale_distribution == "balanced" and not low <= 1 <= high:
            raise ValueError(f"a balanced scale needs least <= 1 <= greatest; got {self.scale}")
        _check_share("flip", self.flip)
        if self.padding < 0:
            raise ValueError(f"padding must be 0 or more pixels; got {self.padding}")
        if self.padding >= min(self.crop_size):
            raise ValueError(
                f"padding must be less than the crop {self.crop_size}; got {self.padding}"
            )
        if self.fill is not None and not all(0 <= level <= 255 for level in self.fill):
            raise ValueError(f"fill must be three levels from 0 to 255; got {self.fill}")
        if self.padding_class is not None and not 0 <= self.padding_class < IGNORE:
            raise ValueError(
                f"padding_class must be a class id, from 0 to {IGNORE - 1}, or None; "
                f"got {self.padding_class}"
            )


@dataclass(frozen=True, kw_only=True)
class StrongSettings:
    """Strong view: what is done to the weak crop to perturb it."""

    view: str = "phtps"
    """phtps: photometric change and thin-plate-spline warp; ph or tps: one of them; colour: jitter,
    grayscale and blur, each by its probability; mkd: exactly one of jitter, blur, equalize,
    solarize and grayscale; sda: some of 17 operations on the whole image, before scale, crop and
    flip; randaugment: some of 16 operations, Cutout among them, on crops that are classified as
    wholes; channels: brightness, contrast, gain, noise and blur of images of any channels, chtps
    with the warp; none: the strong view is the weak one; or a plugin's, by name."""
    options: tuple[str, ...] = ()
    """options of a plugin's view, as name=value."""
    photometric_strength: float = 1.0
    """Strength s_P of the photometric change (0: none, 1: the paper's)."""
    geometric_strength: float = 1.0
    """Strength s_G of the warp (0: none, 1: the paper's)."""
    tps: Literal["paper", "official"] = "paper"
    """Control points and spread of the warp: as the paper states, or as its code had them."""
    tps_sigma: float | None = None
    """Standard deviation of the control points in place of the preset's (CIFAR-10: 0.1)."""
    photometric_space: Literal["hsv", "rgb"] = "hsv"
    """Space in which brightness and contrast act."""
    permute: Literal["image", "batch"] = "image"
    """Draw the order of the colour channels per image or once per batch."""
    clamp: bool = False
    """Clip the photometric change to [0, 1]; the paper's code does not."""
    jitter: tuple[float, float, float, float] = (0.5, 0.5, 0.5, 0.25)
    """colour, mkd: greatest change of brightness, contrast, saturation (factors), hue (turns)."""
    jitter_probability: float = 0.8
    """colour: share of samples that are jittered."""
    grayscale_probability: float = 0.2
    """colour: share of samples that lose their colour."""
    blur_probability: float = 0.5
    """colour: share of samples that are blurred."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """colour, mkd: least and greatest standard deviation of the Gaussian blur in pixels."""
    sda_operations: int = 3
    """sda: operations of an image (N)."""
    sda_replacement: bool = False
    """sda: an operation may be drawn more than once, as the paper's listing has it."""
    sda_order: Literal["random", "pool"] = "random"
    """sda: the order in which they act; pool: that of the listing, as in the released code."""
    sda_magnitudes: Literal["sampled", "official"] = "sampled"
    """sda: draw each magnitude from its range, or take the released code's constants."""

    randaugment_operations: int = 1
    """randaugment: operations of an image (n)."""
    randaugment_magnitudes: tuple[int, int] = (1, 10)
    """randaugment: least and greatest magnitude (m), drawn once for an image."""

    def __post_init__(self) -> None:
        if self.view not in OWN_VIEWS:
            VIEWS.find(self.view)
        for word in self.options:
            if "=" not in word:
                raise ValueError(f"--strong.options takes name=value; got {word!r}")
        for name in ("photometric_strength", "geometric_strength"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more; got {getattr(self, name)}")
        if self.tps_sigma is not None and self.tps_sigma < 0:
            raise ValueError(f"tps_sigma must be 0 or more; got {self.tps_sigma}")
        for name in ("jitter_probability", "grayscale_probability", "blur_probability"):
            _check_share(name, getattr(self, name))
        if (
            not all(0 <= change <= 1 for change in self.jitter[:3])
            or not 0 <= self.jitter[3] <= 0.5
        ):
            raise ValueError(
                "jitter must be three changes from 0 to 1 and a hue from 0 to 0.5; "
                f"got {self.jitter}"
            )
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(
                f"blur_sigma must be two widths, 0 < least <= greatest; got {self.blur_sigma}"
            )
        if not 1 <= self.sda_operations <= (100 if self.sda_replacement else SDA_POOL):
            raise ValueError(
                f"sda_operations must lie between 1 and {SDA_POOL} (100 with sda_replacement); "
                f"got {self.sda_operations}"
            )

        if self.randaugment_operations < 1:
            raise ValueError(
                f"randaugment_operations must be 1 or more; got {self.randaugment_operations}"
            )
        low, high = self.randaugment_magnitudes
        if not 0 <= low <= high <= 10:
            raise ValueError(
                "randaugment_magnitudes must be two numbers, 0 <= least <= greatest <= 10; "
                f"got {self.randaugment_magnitudes}"
            )

    @property
    def photometric(self) -> bool:
        """Whether the device changes colours."""
        return self.view in ("phtps", "ph")

    def parsed_options(self) -> dict[str, Any]:
        """Return the options as keyword arguments of the view."""
        import yaml

        words = (word.split("=", 1) for word in self.options)
        return {name: yaml.safe_load(value) for name, value in words}

    @property
    def warped(self) -> bool:
        """Whether the device warps the crop."""
        return self.view in ("phtps", "tps", "chtps")


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """How samples are read and decoded; never what is drawn, which is the same for all of these."""

    loader: Literal["auto", "dali", "portable"] = "auto"
    """dali, portable (Pillow), or auto: dali where it is installed."""
    jpeg: Literal["pillow", "torchcodec"] = "pillow"
    """portable: who decodes JPEGs, to the same pixels; which is faster depends on the machine."""
    cache: Literal["none", "host", "device"] = "none"
    """Where decoded images stay after the first epoch that decodes them: host, in memory as uint8
    (2048 x 1024: 6 MiB each, on every rank); device, on the GPU with their masks, where one kernel
    cuts the crops. Refused, with the sizes, where they do not fit."""
    corrupt: Literal["stop", "skip"] = "stop"
    """What a sample that cannot be decoded does to training: stop ends it by name; skip puts the
    next sample of the stream in its place, says so, and counts it in metrics.jsonl. Evaluation
    always stops."""
    threads: int = 0
    """Threads that read and decode, per rank; 0: the machine's cores, shared by its ranks."""
    affinity: bool = False
    """Keep the threads of each rank on its own share of the cores (for machines of several sockets
    whose launcher does not)."""
    prefetch: int = 2
    """Batches prepared ahead of the training step."""
    shuffle_buffer: int = 0
    """0 draws a full permutation per epoch; a number keeps reads near the order of the tars, each
    sample at most so many places late (for disks that are slow at random reads)."""
    window_decode: bool = True
    """dali: decode only the part of an image that the crop shows, where decoding is on the CPU."""
    hw_decoder_load: float = 0.75
    """dali on a GPU: share of the JPEGs that its decoding engine takes, where it has one; the CUDA
    cores take the others. NVIDIA's figures for an A100 are best at this share."""
    preallocate: bool = True
    """dali on a GPU: reserve the decoder's buffers for the largest image at once, so that none
    grows, and waits for the device, during training."""
    mask_cache: int = 1024
    """MiB per rank in which decoded masks are kept, run-length coded (decoding a mask costs as much
    as decoding its image)."""

    def __post_init__(self) -> None:
        for name, least in (
            ("threads", 0),
            ("prefetch", 1),
            ("shuffle_buffer", 0),
            ("mask_cache", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more; got {getattr(self, name)}")
        _check_share("hw_decoder_load", self.hw_decoder_load)
        if self.loader == "dali" and self.cache == "device":
            raise ValueError(
                "--loader.cache device needs no dali: images are decoded once and cut by a kernel; "
                "leave --loader.loader auto, or choose --loader.cache host"
            )

    @property
    def num_threads(self) -> int:
        """The number of threads, at least 1."""
        # torchrun says how many ranks a machine has.
        ranks = environment_number("LOCAL_WORLD_SIZE", 1)
        return self.threads or max(1, len(os.sched_getaffinity(0)) // ranks)


def _check_size(name: str, size: tuple[int, int], lengths: str = "a height and a width") -> None:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"{name} must be {lengths} of at least 1 pixel; got {size}")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1]; got {value}")
