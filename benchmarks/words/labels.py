"""The words of benchmarks of labels: made, doubted, suggested."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...trainers.labels.settings import LabelingSettings
from .given import Device

CHOSEN = LabelingSettings(threshold="class", ratio=0.4)


@dataclass(frozen=True, kw_only=True)
class LabelingBenchSettings:
    """Measure pseudo-labeling against plain forward passes."""

    path: tyro.conf.Positional[Path]
    """a run's folder, a checkpoint or an export"""
    data: Path | None = None
    """the data set; the one of the run when not given"""
    split: str | None = None
    """the split whose unlabeled images are labeled; the one of the run when not given"""
    settings: Annotated[LabelingSettings, tyro.conf.arg(name="")] = CHOSEN
    """how images are labeled"""
    images: int = 48
    """how many of them"""
    repeats: int = 3
    """how often each is measured"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    out: Path | None = None
    """write the results to this file as well (JSON)"""


@dataclass(frozen=True, kw_only=True)
class SuggestBenchSettings:
    """Simulate labelling on a data set that has all masks."""

    data: Path
    """a converted data set with masks; images are held out of its training images"""
    start: int = 8
    """masks to begin with; each round doubles them"""
    rounds: int = 2
    """how often new masks are asked for"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """seeds of the images to begin with, of those held out, and of training"""
    held_out: int = 80
    """training images to score on, never labeled"""
    work: Path | None = None
    """folder for the trainings: the same words go on there; one for the time without it"""
    device: Device = "auto"
    """auto takes the GPU if there is one"""
    out: Path | None = None
    """write the results to this file as well (JSON)"""

    def __post_init__(self) -> None:
        if not self.seeds or min(self.start, self.rounds, self.held_out) < 1:
            raise ValueError("--start, --rounds and --held-out are at least 1, --seeds one or more")


@dataclass(frozen=True, kw_only=True)
class MasksSettings:
    """Spoil masks, and find them again: ours beside cleanlab's ranking of the same predictions."""

    data: tyro.conf.Positional[Path]
    """a converted data set with masks"""
    work: Path
    """folder for the spoiled data set, two runs and their predictions; what is there is kept"""
    size: tuple[int, int] = (180, 240)
    """height and width in pixels of images and masks"""
    share: float = 0.1
    """share of the masks that are spoiled"""
    recipe: str = "supervised-camvid-swiftnet-lite0-tiny"
    """what learns one half of the spoiled masks and judges the other"""
    steps: int = 300
    """steps of each of the two runs"""
    spoilings: int = 5
    """how often the masks that are judged are spoiled, each time others (the networks keep what
    they learnt of the first)"""
    seed: int = 0
    """seed of the first spoiling, of the halves and of the runs"""
    methods: tuple[Literal["softmin", "num_pixel_issues"], ...] = ("softmin",)
    """cleanlab's rankings, where it is installed (pip install cleanlab)"""
    device: Device = "auto"
    """auto takes the GPU if there is one"""
    out: Path | None = None
    """write the results to this file as well (JSON)"""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.spoilings < 1 or self.steps < 1:
            raise ValueError(
                "--share lies between 0 and 1, --spoilings and --steps are at least 1; got "
                f"{self.share}, {self.spoilings} and {self.steps}"
            )
