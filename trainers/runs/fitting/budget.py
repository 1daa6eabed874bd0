"""How many steps fit a budget of time."""

from collections.abc import Mapping
from dataclasses import dataclass

LEAST_STEPS, MOST_STEPS = 20, 10_000
"""Steps of a training: fewer teach nothing, more are for those who know what for."""
FOR_TRAINING = 0.9
"""Share of the time left that trainings are planned for."""
FOR_LABELS = 0.2
"""Share of the budget that labels of images without masks may take."""
LEAST_LABELS = 12
"""Images without masks that are labeled whatever they take."""
DRAWN = 2.0
"""Seconds of a label that is drawn and written, over those of the network."""
LOOKED_AT = 8.0
"""Seconds in which suggestions look at an image by two networks, in several views, over those of a
label."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Measured seconds: of a step by run, of a training's beginning and end, of a label."""

    steps: Mapping[str, float]
    begin: float
    image: float


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What a budget is planned for."""

    steps: int
    """of each training"""
    labels: int
    """images without masks that are labeled"""
    suggest: bool
    """whether there is time to look at all images without masks for suggestions"""


def plan_steps(
    times: Times,
    *,
    asked: str,
    budget: float,
    spent: float,
    scored: int,
    unlabeled: int,
    suggest: bool = False,
) -> Shares:
    """Return what fits a budget.

    asked: the budget as it was given; budget, spent: its seconds, and those that are gone. scored,
    unlabeled: images. suggest: whether suggestions are wanted. Raises ValueError, with a budget
    that would do, where too few steps fit.
    """
    most = int(FOR_LABELS * budget / (DRAWN * times.image))
    labels = min(unlabeled, max(most, LEAST_LABELS))
    looked_at = LOOKED_AT * times.image * unlabeled
    suggest = suggest and looked_at <= FOR_LABELS * budget
    others = times.image * (2 * scored + DRAWN * labels) + 2 * times.begin
    others += looked_at if suggest else 0
    left, both = budget - spent - others, sum(times.steps.values())
    steps = int(FOR_TRAINING * left / both)
    if steps < LEAST_STEPS:
        needed = spent + others + LEAST_STEPS * both / FOR_TRAINING
        raise ValueError(
            f"--budget {asked} leaves time for {max(steps, 0)} steps of each training, and "
            f"{LEAST_STEPS} are the least: give --budget {int(needed / 60) + 1}m or more"
        )
    return Shares(steps=min(steps, MOST_STEPS), labels=labels, suggest=suggest)
