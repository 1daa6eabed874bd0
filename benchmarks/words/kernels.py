"""The words of `bench kernels` and `bench device`."""

from dataclasses import dataclass
from pathlib import Path

from .given import Device


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
