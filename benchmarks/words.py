"""The words of `warpseg bench NAME`, a dataclass each; importable without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..trainers.labels.settings import LabelingSettings

Arithmetic = Literal["fp32", "amp", "bf16"]
"""Of a plain implementation: float32, fp16 with a loss scaler (bf16 on a CPU), or bf16."""
Device = Literal["auto", "cpu", "cuda"]
TABLE_11 = ("deeplabv2-rn101", "deeplabv3plus-rn50", "swiftnet-rn34", "swiftnet-rn18")
"""Networks of the one-way consistency paper's Table 11."""
CHOSEN = LabelingSettings(threshold="class", ratio=0.4)


@dataclass(frozen=True)
class Given:
    """What stood on the command line: the settings of a benchmark, recipes with words that change
    them, and all words as they were."""

    settings: Any
    recipes: tuple[str, ...]
    changes: tuple[str, ...]
    arguments: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DeviceSettings:
    """Say what the device is, and run every operation once against float64."""

    device: Device = "auto"
    """auto takes the GPU if there is one"""
    share: tuple[int, int] = (1, 1)
    """which part of the operations, of how many parts"""
    size: tuple[int, int, int] = (2, 96, 128)
    """batch, height and width of the operations' inputs"""
    out: Path | None = None
    """file that gets one JSON row a line, each as soon as it is known"""


@dataclass(frozen=True, kw_only=True)
class KernelsSettings:
    """Measure operations against their references, or compile the kernels without a GPU."""

    op: str | None = None
    """only this operation and its variants (cross_entropy, strong_view, ...)"""
    device: Device = "auto"
    """where to measure; auto takes the GPU if there is one"""
    size: tuple[int, int, int] | None = None
    """batch, height and width in pixels of every case, in place of the recipes'"""
    out: Path | None = None
    """folder for kernels.json, kernels.md and kernels.png, or for the compile report, which without
    it takes the place of the one in benchmarks/results"""
    compile: bool = False
    """write the compile report of every kernel instead"""
    mode: str = "max-autotune-no-cudagraphs"
    """mode of torch.compile for the baseline"""
    jobs: int | None = None
    """processes that compile; all cores if not given"""


@dataclass(frozen=True, kw_only=True)
class PipelineSettings:
    """Measure the loaders."""

    data: tyro.conf.Positional[Path]
    """a converted data set with masks"""
    out: Path | None = None
    """write the results to this file as well (JSON)"""
    seconds: float = 6.0
    """length of one measurement"""
    rounds: int = 3
    """measurements of each loader, in turns"""
    threads: int = 2
    """threads of ours, worker processes of the peers"""
    cases: tuple[Literal["small", "large"], ...] = ("small", "large")
    """small: 256 x 256 from the images as they are; large: 512 x 512 from 2048 x 1024"""
    peers: tuple[Literal["torchvision.v2", "albumentations"], ...] = (
        "torchvision.v2",
        "albumentations",
    )
    """loaders to compare with besides Pillow's"""


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """Time the training step of a recipe beside plain PyTorch's."""

    data: Path | None = None
    """a converted data set; without one, only constant batches are timed"""
    split: str | None = None
    """a split of the data set"""
    plain: tuple[Arithmetic, ...] = ("fp32",)
    """arithmetic of the plain implementations: fp32, bf16 (autocast), amp (fp16 and a loss scaler;
    bf16 on a CPU); nothing for none"""
    device: Device = "auto"
    """auto takes the GPU if there is one"""
    classes: int = 19
    """number of classes, where no data set says it"""
    rounds: int = 5
    """windows of each contender, in turns"""
    steps: int = 3
    """steps of a window"""
    nvtx: bool = False
    """also emit NVTX ranges, for Nsight Systems; needs a GPU"""
    out: Path | None = None
    """write the results to this file as well (JSON)"""


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """Measure what the training steps of recipes allocate, phase by phase."""

    model: bool = False
    """compute nothing: follow the step's tensors on the meta device, as on a GPU"""
    plain: bool = False
    """also the plain PyTorch implementation, in the paper's order and with one backward pass"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """of ours and of plain PyTorch: fp32 (the paper's), or bf16 activations; auto is the recipe's,
    bf16 on a GPU that has it, and fp32 for the model"""
    device: Device = "auto"
    """where to measure; auto takes the GPU if there is one"""
    classes: int = 19
    """number of classes"""
    out: Path | None = None
    """write the results to this file as well (JSON)"""


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """Time networks on single images."""

    networks: tuple[str, ...] = TABLE_11
    """names that `warpseg models` lists"""
    sizes: tuple[str, ...] = ("1024x2048", "512x1024")
    """heights and widths in pixels, as 1024x2048"""
    device: Device = "auto"
    """auto takes the GPU if there is one"""
    out: Path | None = None
    """write the results to this file as well (JSON)"""


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
class ScalingSettings:
    """Time the training step of a recipe on 1 to N ranks."""

    ranks: tuple[int, ...] = (1, 2)
    """numbers of ranks on this machine"""
    steps: int = 10
    """steps that are timed, each alone; the median counts"""
    device: Device = "auto"
    """auto takes the GPUs if there are any"""
    classes: int = 19
    """number of classes"""
    out: Path | None = None
    """write the results to this file as well (JSON)"""

    def __post_init__(self) -> None:
        if not self.ranks or min(self.ranks) < 1:
            raise ValueError(f"--ranks takes numbers of at least 1; got {self.ranks}")


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
