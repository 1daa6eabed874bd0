"""What is suggested, and by what, as settings; importable without torch."""

from dataclasses import dataclass
from typing import Literal

from ...scoring.settings import LabelFormat


@dataclass(frozen=True, kw_only=True)
class SuggestSettings(LabelFormat):
    """How many images, or regions of them, are suggested, and what is looked at."""

    count: int = 20
    """images, or regions, to suggest"""
    regions: int = 0
    """height and width in pixels, about, of regions to suggest in place of whole images; 0 is whole
    images"""
    by: Literal["gain", "entropy", "random"] = "gain"
    """gain: what a mask would teach of all images that are like its own; entropy: the mean entropy
    of pixels alone; random: neither, to compare with"""
    flip: bool = True
    """also look at mirrored images"""
    scales: tuple[float, ...] = (0.75,)
    """also look at images of these scales"""
    candidates: int = 4096
    """images or regions that are kept to choose among, of however many: half those of most gain,
    half drawn evenly; memory grows with its square (4096: 34 MB)"""
    batch_size: int = 8
    """most images of one size that pass through a network at once"""
    seed: int = 0
    """of what is drawn"""
    overwrite: bool = False
    """write into a folder that holds suggestions already"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("count", "candidates", "batch_size"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be at least 1; got {getattr(self, name)}")
        if self.candidates < 2 * self.count:
            raise ValueError(
                f"--candidates must be at least twice --count, {2 * self.count}; got "
                f"{self.candidates}"
            )
        if self.regions and self.regions < 16:
            raise ValueError(f"--regions takes 16 pixels or more, or 0; got {self.regions}")
        if any(not 0.1 <= scale <= 10 for scale in self.scales):
            raise ValueError(f"--scales takes factors from 0.1 to 10; got {self.scales}")
