"""Take up a checkpoint where a run goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..engine.checkpoint import check_state, load_checkpoint
from ..engine.steps.engine import Engine
from .kept.folder import RunFile, check_same
from .kept.opening import reason_of


def load_into(
    file: Path, run: dict[str, Any], engine: Engine, streams: Mapping[str, Any], rank: int
) -> None:
    """Put the state of a checkpoint into engine and streams.

    Raises ValueError naming the file where it is damaged or of another run.
    """
    state = load_checkpoint(file)
    check_state(file, state, {"run": RunFile, "streams": list[dict[str, dict[str, Any]]]})
    check_same(file, state["run"], run)
    try:
        engine.load_state_dict(state["engine"])
        for name, stream in streams.items():
            stream.load_state_dict(state["streams"][rank][name])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{file} is damaged or of another run ({reason_of(error)}): take a kept or copied one, "
            "or train anew in another folder"
        ) from error
