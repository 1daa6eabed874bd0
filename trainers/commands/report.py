"""The verb `report`: runs side by side."""

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
    ) -> None:
        """Show runs side by side, with means over the seeds.

        Args:
            runs: folders of runs
            json: file for the numbers
            html: file for a page with curves
        """
        made = build_report(runs)
        print(made.table())
        if json is not None:
            write_text(json, dumps(made.to_json(), indent=2) + "\n")
        if html is not None:
            write_text(html, page(made))

    tyro.cli(run, args=arguments, prog="warpseg report")
    return 0
