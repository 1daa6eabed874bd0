"""Settings of PrevMatch."""

from dataclasses import dataclass

from .weak_to_strong import WeakToStrongSettings


@dataclass(frozen=True, kw_only=True)
class PrevMatchSettings(WeakToStrongSettings):
    """UniMatch V1 that is also taught by what it was before."""

    feature_dropout: float = 0.5
    """share of the channels that the third stream drops between encoder and decoder"""
    previous_threshold: float = 0.9
    """least confidence of a label of the snapshots (tau')"""
    epoch_steps: int = 1000
    """steps of an epoch, within which lambda is constant"""
    snapshot_epochs: int = 4
    """epochs between snapshots"""
    max_snapshots: int = 8
    """snapshots that are kept, each a copy of the network"""
    max_asked: int = 3
    """snapshots that label a batch, at most"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.feature_dropout < 1:
            raise ValueError(f"--feature-dropout must lie in [0, 1); got {self.feature_dropout}")
        if self.previous_threshold < 0:
            raise ValueError(f"--previous-threshold must be >= 0; got {self.previous_threshold}")
        for name in ("epoch_steps", "snapshot_epochs", "max_snapshots", "max_asked"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be at least 1; got {getattr(self, name)}")
