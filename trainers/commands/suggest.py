"""The verb `suggest`: which images to draw masks for next."""

from pathlib import Path
from typing import Annotated

import tyro

from ...pipelines.settings import LoaderSettings
from ...plain import printable
from ..engine.speed import Precision
from ..labels.suggesting.settings import SuggestSettings

READING, CHOSEN = LoaderSettings(), SuggestSettings()


def suggest(arguments: list[str]) -> int:
    """Say which images to label next: `suggest RUN --data DATA --out DIR --count 20`."""

    def run(
        paths: tyro.conf.Positional[tuple[Path, ...]],
        *,
        out: Path,
        data: Path | None = None,
        split: str | None = None,
        settings: Annotated[SuggestSettings, tyro.conf.arg(name="")] = CHOSEN,
        loader: LoaderSettings = READING,
        precision: Precision = "auto",
        device: str = "auto",
    ) -> None:
        """Choose what to draw next among the images that a split, or the data set, has no masks of.

        Writes list.txt, which `warpseg split --add` reads; sheet.html and sheet.png, which show
        each image, what the network sees in it and why it was chosen; images, and labels for a
        tool, to begin from. No mask of the pool is opened. The same words go on with what was
        interrupted; SIGTERM and Ctrl-C stop it, exit status 143 and 130.

        Args:
            paths: folders of runs, checkpoints or exports; several may disagree
            out: folder to write
            data: the data set; the one of the first run when not given
            split: the split whose unlabeled images are the pool; that of the first run when not
                given
            settings: what is suggested
            loader: how images are read
            precision: auto is bf16 or fp16 on a GPU and fp32 on a CPU
            device: auto, cpu, cuda or cuda:N
        """
        from ..engine.journal import start_logging
        from ..engine.processes.stopping import Stopped, terminating
        from .api import suggest

        start_logging(0)
        with terminating() as stop:
            try:
                made = suggest(
                    paths,
                    out,
                    data=data,
                    split=split,
                    settings=settings,
                    loader=loader,
                    precision=precision,
                    device=device,
                    stop=stop,
                )
            except Stopped as stopped:
                raise Stopped(f"{stopped}; the same command goes on", stop.number) from None
        for number, suggestion in enumerate(made, 1):
            print(printable(f"{number:4d}  {suggestion.name}  {suggestion.reason}"))
        print(f"\n{out / 'sheet.html'} shows them; when their masks are drawn:")
        print(f"warpseg split DATA NEXT --base SPLIT --add {out / 'list.txt'}")

    tyro.cli(run, args=arguments, prog="warpseg suggest")
    return 0
