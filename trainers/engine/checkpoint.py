"""Checkpoints: everything a run needs to continue with the same bits, written aside and renamed."""

import os
from pathlib import Path
from typing import Any

import torch

FORMAT = 1
NAME = "checkpoint.pt"


def save_checkpoint(run: Path, state: dict[str, Any], *, keep: bool = False) -> Path:
    """Write the state (tensors and plain values) as the run's checkpoint.

    A reader sees the old file or the new one, never a part. With `keep`, the step's checkpoint
    also stays under `checkpoints/`. Raise OSError, with the old checkpoint whole, when the disk
    does not take it.
    """
    path = run / NAME
    aside = path.with_suffix(".partial")
    try:
        with aside.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        aside.unlink(missing_ok=True)
        raise OSError(
            f"{path} could not be written ({error}); see that its folder is there and has room, "
            "and go on with --resume"
        ) from error
    if keep:
        kept = run / "checkpoints" / f"step-{state['engine']['step']:08d}.pt"
        kept.parent.mkdir(exist_ok=True)
        kept.unlink(missing_ok=True)
        os.link(aside, kept)
    os.replace(aside, path)
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, or the checkpoint of a run folder, onto the CPU.

    Raise FileNotFoundError where there is none and ValueError where the file is no checkpoint of
    this version.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a run's folder or a checkpoint")
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: the run has not saved a checkpoint yet")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is damaged or no checkpoint ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is no WarpSeg checkpoint of format {FORMAT}")
    return state
