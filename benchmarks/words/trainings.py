"""The words of benchmarks that train: races, studies, features; and of the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class RaceSettings:
    """Train recipes on the same images, in the same time or for as many steps, over splits and
    seeds, and score them on images held out of training."""

    data: Path
    """a converted data set"""
    splits: tuple[str, ...]
    """splits of it"""
    seeds: tuple[int, ...] = (0,)
    """seeds of each recipe on each split"""
    budget: str | None = None
    """time that each run has, such as 30m, 2h or 90s: on a GPU of the clock, on a CPU of its cores;
    the number of steps that take it is measured first. Without it --num-steps, or the recipe's
    own"""
    subset: str = "held_out"
    """images that are scored on: held_out is the split's; or val"""
    by: str | None = None
    """groups of images that are scored apart: scene, folder, a regular expression, a file"""
    out: Path = Path("race")
    """folder for the runs, OUT/SPLIT/RECIPE/seed-S; those that are there go on"""
    results: Path | None = None
    """file that gets a row of each run, as soon as it is scored; OUT/race.json if not given. Runs
    that it has rows of are not trained again"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    table: bool = False
    """train nothing: print the table of the results that are there"""

    def __post_init__(self) -> None:
        for name in ("splits", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"--{name} takes one or more that differ; got {values}")
        if self.budget is not None:
            seconds_of(self.budget)


def seconds_of(budget: str) -> float:
    """Return the seconds of 30m, 2h or 90s. Raises ValueError for other words."""
    number, unit = budget[:-1], budget[-1:]
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except (KeyError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"--budget takes a time such as 30m, 2h or 90s; got {budget!r}")
    return seconds


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Train several ways of doing the same on drawn scenes, and compare what they score."""

    name: tyro.conf.Positional[Literal["partial", "rare"]]
    """partial: few whole masks or a part of many; rare: means against a rare class"""
    seeds: int = 2
    """trainings of each way"""
    steps: int = 300
    """steps of each training"""
    only: str = ""
    """a word of the names of the ways to train; all of them without it"""
    work: Path | None = None
    """folder that keeps data and runs, so that a study that was stopped goes on"""
    out: Path | None = None
    """write the results to this file as well (JSON)"""

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.steps < 1:
            raise ValueError(f"--seeds and --steps are 1 or more; got {self.seeds}, {self.steps}")


@dataclass(frozen=True, kw_only=True)
class FeaturesBenchSettings:
    """Train a head behind an encoder that learns, one that is frozen, and its stored features."""

    data: tyro.conf.Positional[Path]
    """a converted data set with masks"""
    split: str | None = None
    """a split of it"""
    recipe: str = "supervised-camvid-swiftnet-lite0-tiny"
    """the recipe of all trainings, but for its network"""
    network: str = "linear-lite0"
    """head and encoder"""
    options: str = "levels=4"
    """options of head and encoder, apart by blanks"""
    views: int = 32
    """views of each image that are kept"""
    encoding: Literal["float16", "int8", "float32"] = "float16"
    """how they are stored"""
    seeds: int = 3
    """trainings of each way"""
    learn_seeds: int | None = None
    """trainings of the dearest way, whose encoder learns; as many where not given"""
    steps: int = 300
    """steps of each training"""
    every: int = 50
    """steps between scores"""
    targets: tuple[float, ...] = (0.2, 0.25, 0.3)
    """mean IoUs whose times are told"""
    work: Path | None = None
    """folder that keeps features and runs, so that a study that was stopped goes on"""
    out: Path | None = None
    """write the results to this file as well (JSON)"""

    def __post_init__(self) -> None:
        if min(self.views, self.seeds, self.steps, self.every) < 1:
            raise ValueError(
                "--views, --seeds, --steps and --every are 1 or more; got "
                f"{self.views}, {self.seeds}, {self.steps} and {self.every}"
            )


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Write the tables of results."""

    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """results, JSON; all committed ones if none is given"""
    out: Path | None = None
    """Markdown file to write, with plots beside it; else the tables are printed"""
