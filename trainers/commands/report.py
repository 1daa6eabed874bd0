"""The verb `report`: runs side by side."""

import os
import sys
import webbrowser
from json import dumps
from pathlib import Path

import tyro

from ...shards.archive import write_text
from ..reports.page import page
from ..reports.report import report as build_report


def report(arguments: list[str]) -> int:
    """Compare runs: `report RUN ...`."""

    def run(
        runs: tyro.conf.Positional[tuple[Path, ...]],
        *,
        json: Path | None = None,
        html: Path | None = None,
        open: bool = False,
        images: int = 6,
        device: str = "auto",
    ) -> None:
        """Show runs side by side, with means over the seeds.

        Args:
            runs: folders of runs
            json: file for the numbers
            html: file for a page with curves and the worst images
            open: show the page in a browser, from a terminal on a screen; elsewhere do nothing
            images: validation images on the page, those with the least IoU first; 0 draws none
            device: where their labels are made: auto, cpu, cuda or cuda:N
        """
        if open and html is None:
            raise ValueError("--open shows the page of --html FILE: name the file as well")
        if images < 0:
            raise ValueError(f"--images must be 0 or more; got {images}")
        made = build_report(runs)
        print(made.table())
        if json is not None:
            write_text(json, dumps(made.to_json(), indent=2) + "\n")
        if html is not None:
            from ..reports.worst import worst_images

            drawn = worst_images(made.runs, made.names(), images, device)
            write_text(html, page(made, worst=drawn))
            if open and _on_screen():
                webbrowser.open(html.resolve().as_uri())

    tyro.cli(run, args=arguments, prog="warpseg report")
    return 0


def _on_screen() -> bool:
    """Tell whether somebody sits at a screen on which a browser could open."""
    named = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and (named or sys.platform == "darwin")
