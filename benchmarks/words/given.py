"""What stands on the command line of any benchmark."""

from dataclasses import dataclass
from typing import Any, Literal

Arithmetic = Literal["fp32", "amp", "bf16"]
"""Of a plain implementation: float32, fp16 with a loss scaler (bf16 on a CPU), or bf16."""
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Given:
    """What stood on the command line: the settings of a benchmark, recipes with words that change
    them, and all words as they were."""

    settings: Any
    recipes: tuple[str, ...]
    changes: tuple[str, ...]
    arguments: tuple[str, ...]
