"""The words of benchmarks of training steps, loaders and networks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from .given import Arithmetic, Device


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


TABLE_11 = ("deeplabv2-rn101", "deeplabv3plus-rn50", "swiftnet-rn34", "swiftnet-rn18")
"""Networks of the one-way consistency paper's Table 11."""


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
