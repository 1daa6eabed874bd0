"""What can be done for classes that have few pixels, in every method."""

from dataclasses import dataclass

from ...pipelines.loaders.focus import FocusSettings


@dataclass(frozen=True, kw_only=True)
class RareSettings:
    """Means against rare classes; none of them by default."""

    crops: float = 0.0
    """share of the labeled crops that are centred on a pixel of a class drawn by its rarity, in the
    images that show it"""
    temperature: float = 0.01
    """of that draw: a lower one draws the rarest classes alone, a high one all alike (DAFormer has
    0.01 for Cityscapes)"""
    focal: float = 0.0
    """power of the focal loss of labeled pixels (gamma); 0 is plain cross-entropy, 2 is usual"""
    dice: float = 0.0
    """weight of the dice loss of labeled pixels, which is added to their cross-entropy"""
    thresholds: float = 0.0
    """how far the least confidence of a label that teaches is one of its class: a power of the
    ratio of the class's mean confidence to the greatest one; 0 is the same for all, 1 in
    proportion"""

    def __post_init__(self) -> None:
        FocusSettings(share=self.crops, temperature=self.temperature)
        if not 0 <= self.focal < 100:
            raise ValueError(f"--rare.focal must be 0 or more, below 100; got {self.focal}")
        if self.dice < 0:
            raise ValueError(f"--rare.dice must be 0 or more; got {self.dice}")
        if not 0 <= self.thresholds <= 4:
            raise ValueError(f"--rare.thresholds must lie in [0, 4]; got {self.thresholds}")

    @property
    def focus(self) -> FocusSettings:
        """Return what the labeled stream makes of it."""
        return FocusSettings(share=self.crops, temperature=self.temperature)
