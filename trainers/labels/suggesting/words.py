"""Why an image is suggested, in words."""

from collections.abc import Sequence

import numpy as np

from .choosing import Choice, Known
from .settings import SuggestSettings

MOST_CLASSES = 3
FAR, NEAR = 1.25, 0.75
"""Distances, in units of the candidates' mean, from which something is said of them."""
NOTABLE = 0.02
"""Share of pixels from which a disagreement is told."""


def reason(
    choice: Choice,
    classes: Sequence[str],
    known: Known,
    settings: SuggestSettings,
    names: dict[str, str],
) -> str:
    """Say in one line why a candidate was chosen. `names` are those of images by key."""
    look = choice.look
    unsure = f"{look.confidence:.0%} sure on average"
    if settings.by == "random":
        return f"drawn at random; {unsure}"
    parts = [unsure, *_differences(look.differs)]
    if settings.by == "entropy":
        return "; ".join(parts)
    return "; ".join([_teaches(choice.gains, classes, known), *parts, *_novelty(choice, names)])


def _teaches(gains: np.ndarray, classes: Sequence[str], known: Known) -> str:
    """Name the classes that make half of the gain, and how much of them is labeled."""
    order = np.argsort(-gains)
    sums = gains[order].cumsum()
    count = min(int((sums < sums[-1] / 2).sum()) + 1, MOST_CLASSES)
    total = max(float(known.have.sum()), 1e-9)
    told = [f"{classes[c]} ({known.have[c] / total:.1%} of the labels)" for c in order[:count]]
    return f"teaches most about {', '.join(told)}"


def _differences(differs: tuple[float, float, float]) -> list[str]:
    kinds = ("the run's other networks", "mirrored and scaled views", "the other runs")
    told = [
        f"{kind} {share:.0%}" for kind, share in zip(kinds, differs, strict=True) if share > NOTABLE
    ]
    return [f"labeled otherwise by {', '.join(told)} of the pixels"] if told else []


def _novelty(choice: Choice, names: dict[str, str]) -> list[str]:
    like = names[choice.nearest] if choice.nearest else "what is labeled"
    told, times = [f"stands for {choice.stands_for:.0%} of the candidates"], choice.distance
    if times >= FAR:
        told.append(f"unlike anything labeled or above ({times:.1f} x the usual distance)")
    if times <= NEAR:
        told.append(f"rather like {like} ({times:.1f} x the usual distance)")
    return told
