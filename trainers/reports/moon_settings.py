"""Settings of the two moons, importable without torch."""

from dataclasses import dataclass
from typing import Literal

LABELS_PER_CLASS = 3


@dataclass(frozen=True, kw_only=True)
class MoonSettings:
    """Two moons, and how four networks learn them."""

    points: int = 200
    """points of both moons"""
    spread: float = 0.1
    """standard deviation of the points around their arc (its radius is 1)"""
    noise: float = 0.2
    """standard deviation of the perturbation"""
    direction: Literal["code", "text"] = "code"
    """the divergence of (b) and (d): code, from the perturbed prediction to the clean one; text,
    from the clean one to the perturbed one"""
    steps: int = 2500
    """steps of Adam with its default settings, each on all points"""
    seed: int = 0
    """seed of points, labels, weights and perturbations"""

    def __post_init__(self) -> None:
        if self.points < 2 * LABELS_PER_CLASS:
            raise ValueError(f"--points must be {2 * LABELS_PER_CLASS} or more; got {self.points}")
        if self.steps < 1:
            raise ValueError(f"--steps must be at least 1; got {self.steps}")
        for name in ("spread", "noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must be 0 or more; got {getattr(self, name)}")
