"""The verb `fit`: images in, a trained network and a report out.

warpseg fit MINE OUT [--budget 15m] [--memory 8GiB]

Each step is a command of its own, printed before it runs; OUT/fit.json keeps which are done. The
same words go on where a fit was stopped.
"""

from dataclasses import asdict
from json import dumps

import tyro

from ..engine.journal import start_logging
from ..engine.processes.locking import alone
from ..engine.processes.stopping import Stopped
from ..runs.fitting.settings import FitSettings

CHANGEABLE = {
    "plan": ("memory", "method"),
    "time": ("budget", "steps"),
    "predict": ("suggest",),
}
"""Words that may change as long as a step was not done."""


def fit(arguments: list[str]) -> int:
    """Images in, result out: `fit MINE OUT --budget 15m`; the last line on standard output is
    JSON."""
    settings = tyro.cli(FitSettings, args=arguments, prog="warpseg fit")
    from ..runs.fitting.ledger import open_ledger
    from .fitting.steps import Fit

    if not settings.mine.is_dir():
        raise FileNotFoundError(f"{settings.mine} is no folder, or does not exist")
    out = settings.out.resolve()
    if settings.mine.resolve() in (out, *out.parents):
        raise ValueError(f"{settings.out} lies within {settings.mine}: choose a folder beside it")
    start_logging()
    asked = asdict(settings) | {"mine": str(settings.mine.resolve()), "out": str(out)}
    with alone(settings.out):
        try:
            verdict = Fit(settings, open_ledger(settings.out, asked, CHANGEABLE)).run()
        except Stopped as stopped:
            told = "stopped, and what was done is kept; the same command goes on"
            raise Stopped(told, stopped.number) from None
    print(f"\n{verdict['said']}\n{settings.out / 'report.html'}")
    print(dumps({"out": str(settings.out), **verdict}))
    return 0
