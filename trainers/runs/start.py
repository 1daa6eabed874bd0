"""Start a training of any kind: a run, or rounds of them."""

from pathlib import Path
from typing import Any

from ...plain import environment_number
from ..engine.journal import start_logging
from ..engine.settings import RunSettings
from ..methods.rounds import RoundsSettings
from .rounds.run import run_rounds
from .staged import brought
from .train import train


def start(
    settings: RunSettings | RoundsSettings,
    *,
    data: Path,
    out: Path,
    split: str | None = None,
    resume: bool = False,
    device: str = "auto",
    recipe: str = "",
    profile: int = 0,
    jobs: int = 1,
    features: Path | None = None,
) -> dict[str, Any] | None:
    """Train by settings into the folder `out`; of rounds return the summary, if they came to their
    end.

    `profile` and `features` are for a run, `jobs` for rounds. Raises as `train` and `run_rounds`.
    """
    start_logging(environment_number("RANK", 0))
    shared: dict[str, Any] = {
        "data": brought(data),
        "out": out,
        "split": split,
        "resume": resume,
        "device": device,
        "recipe": recipe,
    }
    if isinstance(settings, RoundsSettings):
        if features is not None:
            raise ValueError(
                "rounds label images anew and change them: train them without --features"
            )
        return run_rounds(settings, jobs=jobs, **shared)
    train(settings, profile=profile, features=features, **shared)
    return None
