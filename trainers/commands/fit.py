"""The verb `fit`: images in, a trained network and a report out.

warpseg fit MINE OUT [--budget 15m] [--memory 8GiB]

Each step is a command of its own, printed before it runs; OUT/fit.json keeps which are done. The
same words go on where a fit was stopped.
"""

from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path

import tyro

from ..engine.journal import start_logging
from ..engine.processes.locking import alone
from ..engine.processes.stopping import Stopped
from ..runs.fitting.amounts import bytes_of, seconds_of


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Convert images, train with and without those that have no masks, score, label and report.

    MINE is what `warpseg convert auto` recognises: what labelling tools export, or images/, masks/,
    unlabeled/ and classes.txt. The same words go on with what was interrupted.
    """

    mine: tyro.conf.Positional[Path]
    """folder of the images and masks"""
    out: tyro.conf.Positional[Path] = Path("fit")
    """folder for all that is made, OUT/report.html among it"""
    budget: str = "15m"
    """time for everything, such as 15m or 2h; trainings get what the other steps leave"""
    memory: str = ""
    """most memory of a training, such as 8GiB; what is free when not given"""
    method: str = "consistency"
    """method that learns from images without masks: consistency, consistency-mt, vat, gta, mkd"""
    val: float = 0.25
    """share of the images with masks that is held out and scored on, at least two, where MINE does
    not say which"""
    steps: int = 0
    """steps of each training; 0: as many as the budget allows, by the time that one takes"""
    suggest: int = 20
    """images without masks that are suggested for labelling next; 0: none"""
    seed: int = 0
    """seed of both trainings"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def __post_init__(self) -> None:
        seconds_of(self.budget)
        if self.memory:
            bytes_of(self.memory)
        if not 0 < self.val < 1:
            raise ValueError(f"--val is a share between 0 and 1, such as 0.25; got {self.val}")
        for name in ("steps", "suggest", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must be 0 or more; got {getattr(self, name)}")


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
    from .fit_steps import Fit

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
