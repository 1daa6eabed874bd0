"""What trained networks say of images without masks, in numbers: one pass, nothing kept.

Each image is labeled by every network and, by the first network of each run, in weak views
(mirrored, scaled). Their probabilities are brought to one grid of cells of some CELL x CELL pixels
and compared there; what leaves the device is a few numbers for each image, or each of its regions.

    entropy        of the mean probability, over log C: how little is known, whatever the reason
    disagreement   mutual information of label and network or view (BALD), over log C: how much
                   of the entropy another label would settle
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ....pipelines.batches import PlainBatch
from ...engine.protocol import EvaluationSettings
from ...scoring.inference import resize_image
from ...scoring.trained import TrainedNetwork
from .asking import Run, Size, ask_all, grid_of

FEATURE_EDGE = 512
"""Longest edge in pixels of images that features are taken of."""
LAYOUT = (2, 2)
"""Parts of a whole image whose features stand side by side."""


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of an image, in pixels; all of it where whole images are looked at."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Look:
    """What networks say of an image or a region, without any of its pixels.

    `entropy`, `disagreement` and `confidence` are means over pixels, in [0, 1]; `expected` float32
    (C,) are the images' worth of pixels of each class that are to be expected, `unsure` those by
    their entropy; `differs` are the shares of pixels to which the run's other networks, the views,
    and the other runs give another class; `feature` is float16 (D,).
    """

    key: str
    region: Region
    entropy: float
    disagreement: float
    confidence: float
    expected: np.ndarray
    unsure: np.ndarray
    differs: tuple[float, float, float]
    feature: np.ndarray

    @property
    def name(self) -> tuple[str, int, int]:
        """What tells it from others."""
        return self.key, self.region.top, self.region.left


def look(
    runs: Sequence[Run],
    batch: PlainBatch,
    *,
    evaluation: EvaluationSettings,
    flip: bool,
    scales: Sequence[float],
    regions: int,
    dtype: torch.dtype,
    featured: bool = True,
) -> Iterator[Look]:
    """Yield what the networks say of each image of a batch, region by region.

    The images are normalised for the first network; the others see them normalised for theirs. All
    networks are on the images' device and in evaluation mode. regions: edge of regions in pixels, 0
    for whole images. featured: False leaves features out. Raises ValueError naming an image of
    which a network says nothing finite.
    """
    size = (batch.image.shape[-2], batch.image.shape[-1])
    grid = grid_of(size)
    said = ask_all(runs, batch.image, evaluation, (flip, scales), grid, dtype)
    for key, fine in zip(batch.keys, said.finite().tolist(), strict=True):
        if not fine:
            raise ValueError(
                f"a network returns NaN or infinite logits for image {key}: its training diverged; "
                "suggest by an earlier checkpoint"
            )
    parts = parts_of(size, regions)
    maps = said.maps(parts)
    if featured:
        feature = features(runs[0][0], batch.image, parts, dtype)
    else:
        feature = batch.image.new_zeros(len(batch.keys), 1, *parts)
    yield from _looks(batch.keys, size, parts, maps, feature)


def parts_of(size: Size, regions: int) -> Size:
    """Return how many regions of an edge, about, an image has, each way; one for an edge of 0."""
    if not regions:
        return 1, 1
    return max(1, round(size[0] / regions)), max(1, round(size[1] / regions))


def features(trained: TrainedNetwork, image: Tensor, parts: Size, dtype: torch.dtype) -> Tensor:
    """Return features of images, or of their parts: float32 (N, D, *parts).

    They are means of the encoder's coarsest feature of an image of FEATURE_EDGE pixels at most;
    of a whole image those of its quarters, side by side. Of a network without an encoder of its
    own (`encode`) they are its logits'.
    """
    network = cast(Any, trained.network)
    network = getattr(network, "members", [network])[0]
    encode = getattr(network, "encode", None)
    least = getattr(network, "minimum_size", 16)
    scale = max(FEATURE_EDGE / max(image.shape[-2:]), least / min(image.shape[-2:]))
    if scale < 1:
        size = (round(image.shape[-2] * scale), round(image.shape[-1] * scale))
        image = resize_image(image, size)
    image = image.contiguous(memory_format=torch.channels_last)
    with torch.autocast(image.device.type, dtype=dtype, enabled=dtype != torch.float32):
        found = network(image) if encode is None else encode(image)[-1]
    found = found.float()
    if parts != (1, 1):
        return F.adaptive_avg_pool2d(found, parts)
    return F.adaptive_avg_pool2d(found, LAYOUT).flatten(1)[..., None, None]


def _looks(
    keys: Sequence[str], size: Size, parts: Size, maps: dict[str, Tensor], feature: Tensor
) -> Iterator[Look]:
    columns = {name: _rows(values) for name, values in maps.items()}
    halves = _rows(feature).clip(-65504, 65504).astype(np.float16)
    places = [
        Region(top, left, bottom - top, right - left)
        for top, bottom in _bounds(size[0], parts[0])
        for left, right in _bounds(size[1], parts[1])
    ]
    for image, key in enumerate(keys):
        for place, region in enumerate(places):
            share = np.float32(region.height * region.width / (size[0] * size[1]))
            of = {name: values[image, place] for name, values in columns.items()}
            yield Look(
                key=key,
                region=region,
                entropy=float(of["entropy"][0]),
                disagreement=float(of["disagreement"][0]),
                confidence=float(of["confidence"][0]),
                expected=of["expected"] * share,
                unsure=of["unsure"] * share,
                differs=(
                    float(of["differs"][0]),
                    float(of["differs"][1]),
                    float(of["differs"][2]),
                ),
                feature=halves[image, place].copy(),
            )


def _bounds(length: int, count: int) -> list[tuple[int, int]]:
    """Return where parts of a length begin and end."""
    return list(pairwise(length * number // count for number in range(count + 1)))


def _rows(values: Tensor) -> np.ndarray:
    """Return (N, channels, h, w) as float32 (N, h w, channels) on the host."""
    return values.float().flatten(2).permute(0, 2, 1).contiguous().cpu().numpy()
