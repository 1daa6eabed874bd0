"""What trained networks say of images without masks: probabilities on one grid of cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.protocol import EvaluationSettings
from ...scoring.inference import predict_logits
from ...scoring.prediction import Prediction
from ...scoring.trained import TrainedNetwork

CELL = 4
"""Pixels, each way, of a cell in which probabilities are compared."""
MOST_CELLS = 2**17
"""Cells of an image, at most: those of 1024 x 2048 pixels."""
TINY = 1e-9
Size = tuple[int, int]
Run = Sequence[TrainedNetwork]
"""The networks of a run, the one that it answers with first."""


def grid_of(size: Size) -> Size:
    """Return how many cells an image has, each way: of CELL pixels, or of twice that, and so on,
    where they would be more than MOST_CELLS."""
    cell = CELL
    while math.ceil(size[0] / cell) * math.ceil(size[1] / cell) > MOST_CELLS:
        cell *= 2
    return math.ceil(size[0] / cell), math.ceil(size[1] / cell)


@dataclass(frozen=True)
class Said:
    """Probabilities (N, C, h, w) of all passes, by kind; the first of each run answers for it."""

    answers: list[Tensor]
    others: list[tuple[Tensor, Tensor]]
    views: list[tuple[Tensor, Tensor]]

    def all(self) -> list[Tensor]:
        """Return the probabilities of all passes."""
        return [*self.answers, *(p for _, p in self.others), *(p for _, p in self.views)]

    def finite(self) -> Tensor:
        """Return, for each image, whether all of them are numbers: bool (N,)."""
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


def ask_all(
    runs: Sequence[Run],
    image: Tensor,
    evaluation: EvaluationSettings,
    views: tuple[bool, Sequence[float]],
    grid: Size,
    dtype: torch.dtype,
) -> Said:
    """Return what all networks of all runs say of images, and the first of each of their views.

    The images are normalised for the first network of the first run. views: whether they are
    mirrored, and by which factors scaled. grid: cells of an image, each way.
    """
    flip, scales = views
    said = Said([], [], [])
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
