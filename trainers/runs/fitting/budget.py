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


@dataclass(frozen=True, kw_only=True)
class Times:
    """Measured seconds: of a step by run, of a training's beginning and end, of a label."""

    steps: Mapping[str, float]
    begin: float
    image: float


def plan_steps(
    times: Times, *, asked: str, budget: float, spent: float, scored: int, unlabeled: int
) -> tuple[int, int]:
    """Return the steps of each training, and how many images without masks are labeled.

    asked: the budget as it was given; budget, spent: its seconds, and those that are gone. scored,
    unlabeled: images. Raises ValueError, with a budget that would do, where too few steps fit.
    """
    most = int(FOR_LABELS * budget / (DRAWN * times.image))
    labels = min(unlabeled, max(most, LEAST_LABELS))
    others = times.image * (2 * scored + DRAWN * labels) + 2 * times.begin
    left, both = budget - spent - others, sum(times.steps.values())
    steps = int(FOR_TRAINING * left / both)
    if steps < LEAST_STEPS:
        needed = spent + others + LEAST_STEPS * both / FOR_TRAINING
        raise ValueError(
            f"--budget {asked} leaves time for {max(steps, 0)} steps of each training, and "
            f"{LEAST_STEPS} are the least: give --budget {int(needed / 60) + 1}m or more"
        )
    return min(steps, MOST_STEPS), labels
