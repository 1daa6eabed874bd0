"""Settings of FixMatch."""

from dataclasses import dataclass

from .weak_to_strong import Labels, WeakToStrongSettings


@dataclass(frozen=True, kw_only=True)
class FixMatchSettings(WeakToStrongSettings):
    """One strong view, taught by sure labels of the weak one."""

    labeler: Labels = "teacher"
    """who labels the weak views: teacher, a moving average of the student, as in UniMatch V2; the
    student in its pass on labeled images, in training mode, as in V1; running: the student in
    evaluation mode"""
    ema_decay: float = 0.996
    """share of the teacher that a step keeps"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.ema_decay <= 1:
            raise ValueError(f"--ema-decay must lie in [0, 1]; got {self.ema_decay}")

    def encoded_fault(self) -> str:
        """Say that mixing is of images."""
        return self.mixing_fault()
