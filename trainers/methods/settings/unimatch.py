"""Settings of UniMatch (V1)."""

from dataclasses import dataclass

from .weak_to_strong import Labels, WeakToStrongSettings


@dataclass(frozen=True, kw_only=True)
class UniMatchSettings(WeakToStrongSettings):
    """Two strong views and dropped features, taught by sure labels of the weak view."""

    feature_dropout: float = 0.5
    """share of the channels that the third stream drops between encoder and decoder"""
    labeler: Labels = "student"
    """who labels the weak views: the student in its pass on labeled images, in training mode;
    running: the student in evaluation mode; teacher: a moving average of the student"""
    ema_decay: float = 0.996
    """share of a teacher that a step keeps"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.feature_dropout < 1:
            raise ValueError(f"--feature-dropout must lie in [0, 1); got {self.feature_dropout}")
        if not 0 <= self.ema_decay <= 1:
            raise ValueError(f"--ema-decay must lie in [0, 1]; got {self.ema_decay}")
