"""What a fit is asked for."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from .amounts import bytes_of, seconds_of


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Convert images, train with and without those that have no masks, score, label and report.

    MINE is what `warpseg convert auto` recognises: what labelling tools export, or images/, masks/,
    unlabeled/ and classes.txt. The same words go on with what was interrupted.
    """

    mine: tyro.conf.Positional[Path]
    """folder of the images and masks"""
    out: tyro.conf.Positional[Path] = Path("fit")
    """folder for all that is made, OUT/report.html among it"""
    budget: str = "15m"
    """time for everything, such as 15m or 2h; trainings get what the other steps leave"""
    memory: str = ""
    """most memory of a training, such as 8GiB; what is free when not given"""
    method: str = "consistency"
    """method that learns from images without masks: consistency, consistency-mt, vat, gta, mkd"""
    val: float = 0.25
    """share of the images with masks that is held out and scored on, at least two, where MINE does
    not say which"""
    steps: int = 0
    """steps of each training; 0: as many as the budget allows, by the time that one takes"""
    suggest: int = 20
    """images without masks that are suggested for labelling next; 0: none"""
    seed: int = 0
    """seed of both trainings"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def __post_init__(self) -> None:
        seconds_of(self.budget)
        if self.memory:
            bytes_of(self.memory)
        if not 0 < self.val < 1:
            raise ValueError(f"--val is a share between 0 and 1, such as 0.25; got {self.val}")
        for name in ("steps", "suggest", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must be 0 or more; got {getattr(self, name)}")
