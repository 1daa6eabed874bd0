"""How features are made, as settings; importable without torch."""

from dataclasses import dataclass

from ....shards.features.encoding import Encoding


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """How features are made."""

    views: int = 4
    """drawn pairs of views of each image: so many epochs of the recipe's streams"""
    encoding: Encoding = "float16"
    """how features are stored: float16; int8, half of that, with its error measured; float32, as
    they are"""
    size_only: bool = False
    """say what they would take, and make none"""

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ValueError(f"--views must be at least 1; got {self.views}")
