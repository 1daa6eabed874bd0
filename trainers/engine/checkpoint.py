"""Checkpoints: everything a run needs to continue with the same bits, written aside and renamed.

Each tensor lies in the file with its CRC-32; reading compares them all. Of a run whose weights
became no numbers nothing is saved: DIVERGED says so in its folder.
"""

import os
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch

from ...models.tensor_files import UnfitFile, load_tensors
from ...plain import one_line, typed
from ...shards.archive import write_text

FORMAT = 1
NAME = "checkpoint.pt"
DIVERGED = "diverged.txt"
"""File of a run's folder that says why nothing was saved any more."""


class EngineState(TypedDict):
    """What `Engine.state_dict` returns."""

    step: int
    networks: dict[str, dict[str, Any]]
    optimizers: NotRequired[dict[str, dict[str, Any]]]


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
        if keep:
            kept = run / "checkpoints" / f"step-{state['engine']['step']:08d}.pt"
            kept.parent.mkdir(exist_ok=True)
            kept.unlink(missing_ok=True)
            os.link(aside, kept)
        os.replace(aside, path)
    except (OSError, RuntimeError) as error:
        aside.unlink(missing_ok=True)
        raise OSError(
            f"{path} could not be written ({one_line(error)}); see that its folder is there and "
            "has room, and go on with --resume"
        ) from error
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, or the checkpoint of a run folder, onto the CPU.

    Raise FileNotFoundError where there is none and ValueError where the file is no checkpoint of
    this version, or one of its bits is not as it was written.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a run's folder or a checkpoint")
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: the run has not saved a checkpoint yet, or {path.parent} is "
            "no run's folder"
        )
    try:
        state = load_tensors(path)
    except UnfitFile as error:
        raise ValueError(
            f"{path} is damaged or no checkpoint ({error}): take a kept or copied one, or train "
            "anew in another folder"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is no WarpSeg checkpoint of format {FORMAT}")
    return state


def check_state(path: Path, state: dict[str, Any], kinds: dict[str, Any]) -> None:
    """Raise ValueError naming the file where parts of a checkpoint's state are not of a kind."""
    try:
        for name, kind in {**kinds, "engine": EngineState}.items():
            if name not in state:
                raise ValueError(f"{name} is missing")
            typed(state[name], kind, name)
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no checkpoint of a run ({error})") from None


def mark_diverged(run: Path, reason: str) -> None:
    """Leave a note that a run diverged after its last checkpoint."""
    write_text(run / DIVERGED, reason + "\n")


def refuse_diverged(run: Path) -> None:
    """Raise ValueError where a run's folder says that it diverged after its checkpoint."""
    note = run / DIVERGED
    if note.is_file():
        reason = one_line(note.read_text(errors="replace"))
        raise ValueError(
            f"{run} diverged ({reason}); name {run / NAME} itself to use what it had saved before"
        )
