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
class ReportSettings:
    """Write the tables of results."""

    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """results, JSON; all committed ones if none is given"""
    out: Path | None = None
    """Markdown file to write, with plots beside it; else the tables are printed"""
