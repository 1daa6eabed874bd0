"""How features are stored, and what that costs: float32 as they are, float16, or int8.

int8 stores each channel of each level of each view in 256 steps between its least and its greatest
value there: its error is half a step at most, however the channels differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Encoding = Literal["float16", "int8", "float32"]
STEPS = 255
RANGE = "range"
"""What stands behind the name of a level for the array of its ranges."""


def encode_level(name: str, values: np.ndarray, encoding: Encoding) -> dict[str, np.ndarray]:
    """Return the arrays that hold a level, float32 (h, w, D), by name.

    Raises ValueError for values that are not finite, and for such as float16 cannot hold.
    """
    greatest = float(np.abs(values).max())
    if not np.isfinite(greatest):
        raise ValueError(f"level {name} has values that are no finite numbers")
    if encoding == "float32":
        return {name: values}
    if encoding == "float16":
        if greatest > float(np.finfo(np.float16).max):
            raise ValueError(
                f"level {name} reaches {greatest:.0f}, more than float16 holds: use --encoding "
                "int8 or float32"
            )
        return {name: values.astype(np.float16)}
    low, high = values.min((0, 1)), values.max((0, 1))
    step = ((high - low) / np.float32(STEPS)).astype(np.float32)
    safe = np.where(step > 0, step, np.float32(1))
    levels = np.rint((values - low) / safe).clip(0, STEPS).astype(np.uint8)
    return {name: levels, f"{name}.{RANGE}": np.stack([low, step])}


def decode_level(name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return a level as float32, of one record (h, w, D) or of several (N, h, w, D)."""
    values = arrays[name].astype(np.float32)
    if f"{name}.{RANGE}" not in arrays:
        return values
    low, step = np.moveaxis(arrays[f"{name}.{RANGE}"], -2, 0)[..., None, None, :]
    return low + values * step


@dataclass
class Deviation:
    """What storing costs a level: sums over all values that were stored."""

    squared: float = 0.0
    """of the error"""
    signal: float = 0.0
    """of the values, squared"""
    worst: float = 0.0
    """greatest error of a value"""
    greatest: float = 0.0
    """greatest value"""

    def add(self, true: np.ndarray, stored: np.ndarray) -> None:
        """Count the values of a level and what is read of them again."""
        off = stored.astype(np.float64) - true
        self.join(
            Deviation(
                squared=float((off**2).sum()),
                signal=float((true.astype(np.float64) ** 2).sum()),
                worst=float(np.abs(off).max()),
                greatest=float(np.abs(true).max()),
            )
        )

    def join(self, other: "Deviation") -> None:
        """Count what another one counted."""
        self.squared += other.squared
        self.signal += other.signal
        self.worst = max(self.worst, other.worst)
        self.greatest = max(self.greatest, other.greatest)

    @property
    def relative(self) -> float:
        """The root mean square of the error over that of the values."""
        return (self.squared / self.signal) ** 0.5 if self.signal else 0.0

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "Deviation":
        """Return what `vars`, and JSON, made plain values of."""
        return cls(**{name: float(values[name]) for name in vars(cls())})
