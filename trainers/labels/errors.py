"""How wrong pseudo-labels are, by their confidence, where the true masks are known (DMT, Figure 1).

Two charts: the share of wrong pixels among those of about equal confidence, beside what a
calibrated network would have (1 - confidence); and the share of wrong ones among the surest
pixels, whatever share of all is kept.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ... import IGNORE
from ...shards import Dataset
from ...shards.pseudo import LEVELS, read_pseudo_label
from ..charts import Curve, chart
from ..drawing import stack
from ..engine.streams import open_labeled, with_masks, with_pseudo_labels

BINS = 20
"""Bins of confidence that are drawn."""


@dataclass(frozen=True)
class LabelErrors:
    """Pixels with a pseudo-label and a true class, counted by stored confidence.

    `pixels` and `wrong` are int64 (256,): how many have each confidence, in 255ths, and how many of
    them another class than the true one.
    """

    pixels: np.ndarray
    wrong: np.ndarray

    @property
    def error(self) -> float:
        """Share of wrong pixels."""
        return float(self.wrong.sum() / self.pixels.sum())

    @property
    def calibration_error(self) -> float:
        """Mean distance between confidence and accuracy over the bins, weighed by their pixels."""
        rows = self.binned()
        off = sum(abs((1 - error) - sure) * count for sure, error, count in rows)
        return float(off / self.pixels.sum())

    def binned(self) -> list[tuple[float, float, int]]:
        """Return (mean confidence, share of wrong ones, pixels) of each bin that has pixels."""
        levels = np.arange(LEVELS + 1)
        number = np.minimum(levels * BINS // LEVELS, BINS - 1)
        pixels, wrong, total = (
            np.bincount(number, weights=values, minlength=BINS)
            for values in (self.pixels, self.wrong, self.pixels * levels / LEVELS)
        )
        return [
            (total[i] / pixels[i], wrong[i] / pixels[i], int(pixels[i]))
            for i in range(BINS)
            if pixels[i]
        ]

    def surest(self) -> list[tuple[float, float]]:
        """Return (share of all pixels, share of wrong ones among them), the surest first."""
        pixels, wrong = self.pixels[::-1].cumsum(), self.wrong[::-1].cumsum()
        there = np.flatnonzero(self.pixels[::-1])
        return [(pixels[i] / pixels[-1], wrong[i] / pixels[i]) for i in there]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return {
            "pixels": int(self.pixels.sum()),
            "error": self.error,
            "calibration_error": self.calibration_error,
            "bins": [
                {"confidence": sure, "error": error, "pixels": count}
                for sure, error, count in self.binned()
            ],
        }


def count_errors(dataset: Dataset, folder: Path) -> LabelErrors:
    """Compare a folder of pseudo-labels with the true masks of its images.

    Images without a mask, pixels that were dropped and those without a true class are not counted.
    Raises ValueError where no true mask is known.
    """
    subset, labels = with_pseudo_labels(open_labeled(dataset, folder), folder)
    truth = with_masks(dataset, subset, partly=True)
    if truth is None:
        raise ValueError(
            f"{dataset.root} has no masks for the images of {folder}: label images with masks, "
            "such as warpseg pseudo-label RUN --subset val"
        )
    pixels, wrong = np.zeros((2, LEVELS + 1), np.int64)
    for sample in truth.samples():
        mask, made = sample.read_mask(), read_pseudo_label(labels[sample.key])
        known = (mask != IGNORE) & (made.label != IGNORE)
        level = made.confidence[known]
        pixels += np.bincount(level, minlength=LEVELS + 1)
        wrong += np.bincount(level[made.label[known] != mask[known]], minlength=LEVELS + 1)
    if not pixels.any():
        raise ValueError(f"no pixel of {folder} has both a pseudo-label and a true class")
    return LabelErrors(pixels, wrong)


def draw_errors(errors: LabelErrors, title: str) -> Image.Image:
    """Draw both charts, one above the other."""
    rows = errors.binned()
    total = errors.pixels.sum()
    upper = chart(
        [
            Curve("wrong pixels of this confidence", [(c, 100 * e) for c, e, _ in rows]),
            Curve("share of all pixels", [(c, 100 * n / total) for c, _, n in rows]),
            Curve("wrong, if calibrated", [(c, 100 * (1 - c)) for c, _, _ in rows], dashed=True),
        ],
        title=title,
        across="confidence",
        up="%",
        y_range=(0, 100),
    )
    lower = chart(
        [Curve("wrong among the surest", [(100 * s, 100 * e) for s, e in errors.surest()])],
        title=f"error of all: {100 * errors.error:.2f} %",
        across="share of the pixels that is kept (%)",
        up="%",
    )
    return stack([upper, lower])
