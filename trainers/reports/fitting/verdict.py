"""Is the method better than supervised training alone, and could it be chance?

Both networks are scored on the same held-out images, in at most 64 blocks. The noise of the
difference is its deviation when the blocks are drawn again with replacement (bootstrap, paired):
how much other held-out images of the kind would change it. It does not hold what another seed of
the training would change.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .... import pipelines
from ....pipelines.settings import LoaderSettings
from ....shards import Dataset
from ...engine.runtime import Runtime
from ...scoring.evaluate import evaluate_network
from ...scoring.score import Score, iou_of
from ...scoring.trained import TrainedNetwork

BLOCKS, DRAWS = 64, 1000
FEW = 3
"""Blocks below which noise cannot be told."""


@dataclass(frozen=True)
class Verdict:
    """Two scores on the same images, mean IoU as shares of 1, and the noise of their difference,
    None where there are too few images."""

    method: str
    supervised: float
    semi_supervised: float
    noise: float | None
    images: int

    @property
    def difference(self) -> float:
        """How much better the method is than supervised training."""
        return self.semi_supervised - self.supervised

    @property
    def best(self) -> str:
        """Which of the runs has the greater score."""
        return "semi-supervised" if self.difference > 0 else "supervised"

    def headline(self) -> str:
        """Return the result in one sentence."""
        points = f"{abs(100 * self.difference):.1f} points"
        side = "better" if self.difference > 0 else "worse"
        if self.noise is not None and abs(self.difference) > 2 * self.noise:
            return f"Images without masks made the network {side}, by {points} of mean IoU."
        if abs(self.difference) < 5e-4:
            return "Images without masks made no difference to the network's score."
        return (
            "It cannot be told whether images without masks help here: with them the score is "
            f"{points} {'higher' if self.difference > 0 else 'lower'}, which may be chance."
        )

    def explanation(self) -> str:
        """Return what the numbers are."""
        scores = (
            f"On {self.images} held-out images, training on masks alone reaches "
            f"{100 * self.supervised:.1f} % mean IoU, and {self.method}, which learns from images "
            f"without masks as well, {100 * self.semi_supervised:.1f} %."
        )
        if self.noise is None:
            return f"{scores} {self.images} held-out images are too few to tell chance from merit."
        return (
            f"{scores} Other held-out images would change the difference by about "
            f"{100 * self.noise:.1f} points (one standard deviation); less than twice that is "
            "called chance here. Another seed would change it as well, which is not counted."
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {**asdict(self), "difference": self.difference, "best": self.best}


def score_blocks(trained: TrainedNetwork, dataset: Dataset, runtime: Runtime) -> Score:
    """Score a network on `val`; its groups are blocks of images."""
    subset = dataset.subset("val")
    keys = [sample.key for sample in subset.samples()]
    return evaluate_network(
        runtime.place(trained.network),
        pipelines.plain(
            subset,
            normalization=trained.normalization,
            loader=LoaderSettings(),
            batch_size=1,
            device=runtime.device,
        ),
        trained.evaluation,
        class_names=dataset.classes,
        device=runtime.device,
        normalization=trained.normalization,
        dtype=runtime.dtype,
        expected_images=len(keys),
        groups={key: f"{number % BLOCKS:02d}" for number, key in enumerate(keys)},
    )


def judge(method: str, supervised: Score, semi_supervised: Score) -> Verdict:
    """Compare two scores of the same images in the same blocks."""
    blocks = [torch.stack(list(score.groups.values())) for score in (supervised, semi_supervised)]
    return Verdict(
        method=method,
        supervised=supervised.miou,
        semi_supervised=semi_supervised.miou,
        noise=noise_of(blocks[0], blocks[1]),
        images=supervised.images,
    )


def noise_of(first: Tensor, second: Tensor, seed: int = 0) -> float | None:
    """Return the deviation of the difference of mean IoU over draws of blocks, as an unbiased
    variance has it: confusion matrices, int64 (B, C, C) each. None for fewer than FEW blocks."""
    count = len(first)
    if count < FEW:
        return None
    generator = torch.Generator().manual_seed(seed)
    differences = []
    for _ in range(DRAWS):
        drawn = torch.randint(count, (count,), generator=generator)
        sums = (blocks[drawn].sum(0) for blocks in (first, second))
        old, new = (iou_of(total).nanmean().item() for total in sums)
        differences.append(new - old)
    finite = torch.tensor([value for value in differences if math.isfinite(value)]).double()
    return finite.std().item() * math.sqrt(count / (count - 1)) if len(finite) > 1 else None
