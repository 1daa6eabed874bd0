"""A trained network with what it takes to use it: classes, colours, input statistics, protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ...kernels import normalize, pseudo_label
from ...pipelines.normalization import NormalizationSettings
from ...shards.bands.bands import Bands, checked_image, kind_of
from ..drawing import Colour, indexed_image
from ..engine.protocol import EvaluationSettings
from .image_files import check_kind, read_channels, read_image
from .inference import evaluating, predict_logits

ImageLike = str | Path | Image.Image | np.ndarray
"""A file, a picture of Pillow's, or an array: RGB (H, W, 3) or grey (H, W), uint8; of a network for
other channels (H, W, C), uint8 or uint16."""


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A network with what it takes to use it."""

    network: nn.Module
    name: str
    """Its name for `build_network`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options that it was built with."""
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    normalization: NormalizationSettings
    evaluation: EvaluationSettings
    channels: Bands | None = None
    """Those of its images, with their levels, where they are not RGB of 8 bits."""
    task: Literal["segmentation", "classification"] = "segmentation"
    plugins: tuple[Mapping[str, str], ...] = ()
    """Records of the plugins that parts of the network came with."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where it comes from (recipe, split, step, score): plain values, for the reader."""

    def __post_init__(self) -> None:
        if len(self.palette) != len(self.classes):
            raise ValueError(
                f"the palette has {len(self.palette)} colours for {len(self.classes)} classes"
            )

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.network.parameters()).device

    @overload
    def predict(self, images: ImageLike, *, batch_size: int = 8) -> np.ndarray: ...

    @overload
    def predict(self, images: Sequence[ImageLike], *, batch_size: int = 8) -> list[np.ndarray]: ...

    def predict(
        self, images: ImageLike | Sequence[ImageLike], *, batch_size: int = 8
    ) -> np.ndarray | list[np.ndarray]:
        """Label an image, or several, by the protocol of `evaluation`.

        images: what `ImageLike` says, or a list of such; up to `batch_size` of one size pass
        through the network together. Returns class ids, uint8 (H, W), at the image's own size; of
        a network that classifies images as wholes uint8 (). For a list, a list in its order.

        Raises FileNotFoundError and ValueError for a file that cannot be read, for an array of
        another shape or type, and for a protocol that labels only a part of an image.
        """
        if self.evaluation.mode == "center_crop":
            raise ValueError(
                "evaluation mode center_crop labels only the middle of an image; use "
                "dataclasses.replace(trained, evaluation=EvaluationSettings())"
            )
        if isinstance(images, ImageLike):
            return self.predict([images], batch_size=1)[0]
        pixels = [to_pixels(image, self.channels) for image in images]
        made: dict[int, np.ndarray] = {}
        with evaluating(self.network):
            for chunk in _chunks(pixels, batch_size):
                together = np.stack([pixels[number] for number in chunk])
                label, _ = self.label(torch.from_numpy(together).to(self.device), self._dtype())
                made.update(zip(chunk, label.cpu().numpy(), strict=True))
        return [made[number] for number in range(len(pixels))]

    def label(self, pixels: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Return class ids, uint8 (N, H, W), and their probabilities, float32, of images.

        pixels: (N, H, W, C), uint8 or uint16, on the network's device. dtype: bfloat16 or float16
        runs under autocast. The caller holds the network in evaluation mode (`evaluating`). Of
        images that are classified as wholes the results are (N,). Raises ValueError for a network
        whose logits do not cover the image or are no finite numbers.
        """
        look = self.normalization
        image = normalize(pixels, look.mean, look.std, dtype)
        if self.task == "classification":
            with torch.autocast(image.device.type, dtype=dtype, enabled=dtype != torch.float32):
                logits = self.network(image)
            made = pseudo_label(logits, (1, 1))
            return made.label.flatten(), made.confidence.flatten()
        return predict_logits(
            self.network, image, self.evaluation, normalization=look, dtype=dtype
        ).label()

    def probabilities(
        self, pixels: Tensor, dtype: torch.dtype = torch.float32
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield (rows, probabilities of all classes), float32 (N, C, rows, W), of images.

        pixels, dtype: as for `label`. So few rows at once that memory stays bounded, however large
        the image; images of one size come in the same rows from every network with as many classes.
        Raises as `label`, but does not look for what is no finite number.
        """
        look = self.normalization
        image = normalize(pixels, look.mean, look.std, dtype)
        prediction = predict_logits(
            self.network, image, self.evaluation, normalization=look, dtype=dtype
        )
        yield from prediction.probabilities()

    def colour(self, mask: np.ndarray) -> Image.Image:
        """Return a mask, uint8 (H, W) class ids, as a picture in the classes' colours, its pixels
        still the ids: a PNG of it is a mask again."""
        return indexed_image(mask, self.palette)

    def _dtype(self) -> torch.dtype:
        if self.device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16


def to_pixels(image: ImageLike, channels: Bands | None = None) -> np.ndarray:
    """Return an image as RGB, uint8 (H, W, 3), upright, or with all its `channels`. Raise as
    `read_image`, and ValueError for an array of another shape or type."""
    if channels is not None:
        return _with_channels(image, channels)
    if isinstance(image, str | Path):
        return read_image(Path(image))
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"an image is uint8, levels from 0 to 255; got an array of {pixels.dtype}: convert it"
        )
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"an image is (H, W, 3) or (H, W); got an array of {pixels.shape}")
    return pixels


def _with_channels(image: ImageLike, channels: Bands) -> np.ndarray:
    if isinstance(image, str | Path):
        return read_channels(Path(image), channels)
    levels = checked_image(np.asarray(image), "the image")
    check_kind(kind_of(levels), "the image", channels)
    return levels


def _chunks(pixels: Sequence[np.ndarray], batch_size: int) -> Iterable[list[int]]:
    """Return the numbers of images of one size, at most `batch_size` together."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for number, image in enumerate(pixels):
        sizes.setdefault(image.shape, []).append(number)
    for numbers in sizes.values():
        for start in range(0, len(numbers), batch_size):
            yield numbers[start : start + batch_size]
