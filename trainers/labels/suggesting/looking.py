"""What trained networks say of images without masks, in numbers: one pass, nothing kept.

Each image is labeled by every network and, by the first network of each run, in weak views
(mirrored, scaled). Their probabilities are brought to one grid of cells of some CELL x CELL pixels
and compared there; what leaves the device is a few numbers for each image, or each of its regions.

    entropy        of the mean probability, over log C: how little is known, whatever the reason
    disagreement   mutual information of label and network or view (BALD), over log C: how much
                   of the entropy another label would settle
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ....pipelines.batches import PlainBatch
from ...engine.protocol import EvaluationSettings
from ...scoring.inference import predict_logits, resize_image
from ...scoring.prediction import Prediction
from ...scoring.trained import TrainedNetwork

CELL = 4
"""Pixels, each way, of a cell in which probabilities are compared."""
MOST_CELLS = 2**17
"""Cells of an image, at most: those of 1024 x 2048 pixels."""
FEATURE_EDGE = 512
"""Longest edge in pixels of images that features are taken of."""
LAYOUT = (2, 2)
"""Parts of a whole image whose features stand side by side."""
TINY = 1e-9

Size = tuple[int, int]
Run = Sequence[TrainedNetwork]
"""The networks of a run, the one that it answers with first."""


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
    said = _ask_all(runs, batch.image, evaluation, (flip, scales), grid, dtype)
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


def grid_of(size: Size) -> Size:
    """Return how many cells an image has, each way: of CELL pixels, or of twice that, and so on,
    where they would be more than MOST_CELLS."""
    cell = CELL
    while math.ceil(size[0] / cell) * math.ceil(size[1] / cell) > MOST_CELLS:
        cell *= 2
    return math.ceil(size[0] / cell), math.ceil(size[1] / cell)


def parts_of(size: Size, regions: int) -> Size:
    """Return how many regions of an edge, about, an image has, each way; one for an edge of 0."""
    if not regions:
        return 1, 1
    return max(1, round(size[0] / regions)), max(1, round(size[1] / regions))


@dataclass(frozen=True)
class _Said:
    """Probabilities (N, C, h, w) of all passes, by kind; the first of each run answers for it."""

    answers: list[Tensor]
    others: list[tuple[Tensor, Tensor]]
    views: list[tuple[Tensor, Tensor]]

    def all(self) -> list[Tensor]:
        return [*self.answers, *(p for _, p in self.others), *(p for _, p in self.views)]

    def finite(self) -> Tensor:
        return torch.stack([p.isfinite().flatten(1).all(1) for p in self.all()]).all(0)

    def maps(self, parts: Size) -> dict[str, Tensor]:
        """Return means over the parts of an image: (N, channels, *parts) by name."""
        everything = self.all()
        mean = sum(everything[1:], everything[0]) / len(everything)
        most = math.log(max(mean.shape[1], 2))
        entropy = _entropy(mean) / most
        known = sum(_entropy(p) for p in everything) / len(everything) / most
        kinds = [self.others, self.views, [(self.answers[0], p) for p in self.answers[1:]]]
        differs = torch.cat([_different(kind, entropy) for kind in kinds], 1)
        made = {
            "entropy": entropy,
            "disagreement": (entropy - known).clamp_min(0),
            "confidence": mean.amax(1, keepdim=True),
            "expected": mean,
            "unsure": mean * entropy,
            "differs": differs,
        }
        return {name: F.adaptive_avg_pool2d(values, parts) for name, values in made.items()}


def _entropy(prob: Tensor) -> Tensor:
    return -(prob.clamp_min(TINY).log() * prob).sum(1, keepdim=True)


def _different(pairs: Sequence[tuple[Tensor, Tensor]], like: Tensor) -> Tensor:
    """Return the share of pairs that give a cell two classes, (N, 1, h, w)."""
    if not pairs:
        return torch.zeros_like(like)
    each = [(a.argmax(1) != b.argmax(1)).float() for a, b in pairs]
    return torch.stack(each).mean(0)[:, None]


def _ask_all(
    runs: Sequence[Run],
    image: Tensor,
    evaluation: EvaluationSettings,
    views: tuple[bool, Sequence[float]],
    grid: Size,
    dtype: torch.dtype,
) -> _Said:
    flip, scales = views
    said = _Said([], [], [])
    for run in runs:
        first, *rest = run
        seen = _for(first, runs[0][0], image)
        plain = _ask(first, seen, evaluation, grid, dtype)
        said.answers.append(plain)
        if flip:
            mirrored = _ask(first, seen.flip(-1), evaluation, grid, dtype).flip(-1)
            said.views.append((plain, mirrored))
        for scale in scales:
            scaled = replace(evaluation, scales=(scale,))
            said.views.append((plain, _ask(first, seen, scaled, grid, dtype)))
        for other in rest:
            own = _for(other, runs[0][0], image)
            said.others.append((plain, _ask(other, own, evaluation, grid, dtype)))
    return said


def _for(trained: TrainedNetwork, first: TrainedNetwork, image: Tensor) -> Tensor:
    """Return images, normalised for one network, as another one wants them."""
    here, there = first.normalization, trained.normalization
    if here == there:
        return image
    old, new = (
        [torch.tensor(v, device=image.device)[:, None, None] for v in (look.mean, look.std)]
        for look in (here, there)
    )
    return (image * old[1] + old[0] - new[0]) / new[1]


def _ask(
    trained: TrainedNetwork,
    image: Tensor,
    evaluation: EvaluationSettings,
    grid: Size,
    dtype: torch.dtype,
) -> Tensor:
    once = replace(evaluation, scales=evaluation.scales[:1], flip=False)
    look = trained.normalization
    said = predict_logits(trained.network, image, once, normalization=look, dtype=dtype)
    return on_grid(said, grid)


def on_grid(prediction: Prediction, grid: Size) -> Tensor:
    """Return probabilities as means over the cells of a grid, float32 (N, C, *grid).

    Logits at the network's stride become probabilities there; others band by band, so a map of all
    classes at the image's size never exists.
    """
    height, width = prediction.size
    sums: list[tuple[Tensor, Tensor]] = []
    for rows, logits, covered in prediction.bands():
        prob = logits.float().softmax(1)
        if prob.shape[-2:] != (rows.stop - rows.start, width):
            tall, wide = (
                math.ceil(length * cells / over)
                for length, cells, over in zip(
                    prediction.size, prob.shape[-2:], covered, strict=True
                )
            )
            return _resized(prob[..., :tall, :wide], grid)
        if not sums:
            sums = [(prob.new_zeros(*prob.shape[:2], *grid), prob.new_zeros(grid[0], 1))]
        total, count = sums[0]
        row = torch.arange(rows.start, rows.stop, device=prob.device) * grid[0] // height
        total.index_add_(2, row, F.adaptive_avg_pool2d(prob, (len(row), grid[1])))
        count.index_add_(0, row, prob.new_ones(len(row), 1))
    total, count = sums[0]
    return total / count


def _resized(values: Tensor, size: Size) -> Tensor:
    if all(now >= then for now, then in zip(values.shape[-2:], size, strict=True)):
        return F.adaptive_avg_pool2d(values, size)
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)


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
