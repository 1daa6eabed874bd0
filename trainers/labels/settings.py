"""How a network labels, as settings; importable without torch."""

from dataclasses import dataclass, field
from typing import Literal

from ...shards.maps import MapEncoding
from ..engine.protocol import EvaluationSettings


@dataclass(frozen=True, kw_only=True)
class LabelingSettings:
    """How a network labels images, and which of its labels are kept."""

    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """the protocol: mode, scales, flip; labels have the size of the image in any mode"""
    threshold: Literal["none", "fixed", "global", "class"] = "none"
    """none keeps all labels; fixed those of a confidence of `value`; global the share `ratio` of
    all pixels, and class that of each predicted class, by exact ranking over the whole set"""
    ratio: float = 1.0
    """share that is kept of all pixels or of each class, above 0; 1 keeps all"""
    value: float = 0.9
    """least confidence that threshold fixed keeps"""
    sample_every: int = 1
    """rank every so many-th pixel of each image (DMT: 16)"""
    encoding: MapEncoding = "png"
    """how labels and confidences are stored: zstd takes a fraction of the time of png, and needs
    the package zstandard (extra: zstd) wherever they are read"""
    batch_size: int = 0
    """most images of one size in a pass; 0 is 1, or 250 where whole images have classes"""

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"--ratio must lie in (0, 1]; got {self.ratio}")
        if not 0 <= self.value <= 1:
            raise ValueError(f"--value must lie in [0, 1]; got {self.value}")
        if self.sample_every < 1:
            raise ValueError(f"--sample-every must be at least 1; got {self.sample_every}")
        if self.batch_size < 0:
            raise ValueError(f"--batch-size must be 0 or more; got {self.batch_size}")

    @property
    def ranked(self) -> bool:
        """Whether thresholds follow from the confidences of all images."""
        return self.threshold in ("global", "class") and self.ratio < 1
