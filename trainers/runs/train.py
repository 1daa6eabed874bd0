"""Train: open what a run needs, run it, close it."""

import logging
from pathlib import Path

from ..engine.journal import start_logging
from ..engine.processes.locking import alone
from ..engine.profiling import StepProfiler
from ..engine.runtime import close_runtime, open_runtime
from ..engine.settings import RunSettings
from ..progress import Progress
from .header import next_words
from .ranked import as_rank
from .run import Run

log = logging.getLogger("warpseg")


def train(
    settings: RunSettings,
    *,
    data: Path,
    out: Path,
    split: str | None = None,
    resume: bool = False,
    device: str = "auto",
    recipe: str = "",
    profile: int = 0,
    features: Path | None = None,
) -> bool:
    """Train by the settings on a data set's split and leave checkpoint, metrics and scores in
    `out`, and a profile of some steps if asked; return True. features: a folder of them, which
    stand for the images of training.

    Raises Stopped, all saved, where SIGTERM or Ctrl-C asked for it; ValueError where another
    process works in `out`, and where the run diverges.
    """
    runtime = open_runtime(device, settings.precision, settings.speed)
    start_logging(runtime.rank)
    try:
        with (
            as_rank(runtime, out),
            alone(out, held=runtime.rank == 0),
            Progress(settings.num_steps, unit="step", quiet=runtime.rank > 0) as progress,
        ):
            run = Run(
                settings,
                runtime,
                data=data,
                out=out,
                split=split,
                resume=resume,
                recipe=recipe,
                features=features,
                progress=progress,
            )
            if profile:
                run.profiler = StepProfiler(out / "profile", profile, runtime.device, runtime.rank)
            run.work()
            runtime.barrier()
            if runtime.rank == 0:
                log.info(next_words(out, run.dataset.task))
    finally:
        close_runtime()
    return True
