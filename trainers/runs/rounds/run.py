"""Run training in rounds: part after part, or side by side; restartable at any point."""

import logging
from pathlib import Path
from typing import Any

from ....plain import shown
from ....plugins import require_plugins
from ...engine.processes.locking import alone, clear_lock
from ...engine.processes.stopping import Stopped, terminating
from ...engine.runtime import kept_group
from ...engine.settings import from_plain
from ...methods.registry import ROUNDS
from ...methods.rounds import RoundsSettings
from ..kept.folder import SETTINGS, read_settings, release_folder
from .folder import Rounds
from .jobs import run_side_by_side
from .summary import held_out_scores, write_summary

log = logging.getLogger("warpseg")


def run_rounds(
    settings: RoundsSettings,
    *,
    data: Path,
    out: Path,
    split: str | None = None,
    resume: bool = False,
    device: str = "auto",
    jobs: int = 1,
    recipe: str = "",
) -> dict[str, Any] | None:
    """Run the plan of the settings and return the summary; None on ranks other than the first.

    Parts that are finished are not done again, an interrupted one goes on where it was. jobs: parts
    that do not need each other run side by side, each on a GPU of its own. The result does not
    depend on it, nor on interruptions. Raises as `train` and `label_subset`, and ValueError where
    `out` holds something else, or this without `resume`; Stopped, what is done saved, where SIGTERM
    or Ctrl-C asked for it.
    """
    rounds = Rounds(settings, data=data, out=out, split=split, device=device, recipe=recipe)
    with alone(out, held=rounds.rank == 0), terminating() as stop, kept_group():
        rounds.claim(resume=resume)
        try:
            todo = [part for part in rounds.parts if rounds.record(part) is None]
            if jobs > 1:
                whole = run_side_by_side(rounds, todo, jobs, stop)
            else:
                whole = all(not stop() and rounds.run_part(part, stop) for part in todo)
            if whole:
                for part in rounds.parts if rounds.rank == 0 else ():
                    clear_lock(rounds.folder(part.name), beside=True)
                scores = held_out_scores(rounds)
                return write_summary(rounds, scores) if rounds.rank == 0 else None
        except BaseException:
            if rounds.rank == 0 and not any(rounds.folder(p.name).exists() for p in rounds.parts):
                release_folder(out)
            raise
    raise Stopped("" if rounds.rank else f"stopped; go on with --resume: {out}", stop.number)


def run_one_part(out: Path, name: str, *, device: str = "auto") -> bool:
    """Do one part of the rounds that OUT was claimed for; return True.

    Raises FileNotFoundError where OUT is no folder of rounds, and ValueError for an unknown part or
    one that needs another that is not finished; Stopped as `run_rounds`.
    """
    file = out / SETTINGS
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: {out} holds no rounds yet")
    run = read_settings(out)
    require_plugins(run.get("plugins", ()), out)
    if run["method"] not in ROUNDS:
        raise ValueError(f"{out} holds a single run of {shown(run['method'])}, which has no parts")
    try:
        settings = from_plain(ROUNDS[run["method"]], run["settings"])
    except ValueError as error:
        raise ValueError(f"{file} is damaged or of another version ({error})") from None
    rounds = Rounds(
        settings,
        data=Path(run["data"]),
        out=out,
        split=run["split"],
        device=device,
        recipe=run["recipe"],
    )
    named = {part.name: part for part in rounds.parts}
    if name not in named:
        raise ValueError(f"{out} has no part {name!r}; it has: {', '.join(named)}")
    missing = [need for need in named[name].needs if rounds.record(named[need]) is None]
    if missing:
        raise ValueError(f"part {name!r} needs part {missing[0]!r}, which is not finished")
    if rounds.record(named[name]) is not None:
        return True
    with terminating() as stop:
        if rounds.run_part(named[name], stop):
            return True
        raise Stopped("stopped; the same command goes on", stop.number)
