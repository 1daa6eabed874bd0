"""Settings of UniMatch V2."""

from dataclasses import dataclass
from typing import Literal

from .weak_to_strong import WeakToStrongSettings


@dataclass(frozen=True, kw_only=True)
class UniMatchV2Settings(WeakToStrongSettings):
    """Two strong views that see the two halves of the channels, taught by a moving average."""

    dropout: Literal["complementary", "independent", "none"] = "complementary"
    """which channels of the backbone's features each strong view sees"""
    ema_decay: float = 0.996
    """share of the teacher that a step keeps"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.ema_decay <= 1:
            raise ValueError(f"--ema-decay must lie in [0, 1]; got {self.ema_decay}")

    def encoded_fault(self) -> str:
        """Say that mixing is of images; dropout is of features."""
        return self.mixing_fault()
