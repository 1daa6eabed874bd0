"""Tables and plots of results, as Markdown: every number beside its file and its device.

    warpseg bench report [FILES ...] [--out docs/results.md]

Without files, the committed ones are read: the JSON files of benchmarks/results that are results of
`warpseg bench`. `--out` also gets a plot of each step and pipeline beside the page.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from . import inference, memory, pipeline, scaling, step
from .bars import draw_bars
from .tables import Result

RESULTS = Path(__file__).with_name("results")

TABLES = {
    "pipeline": ("Loaders", pipeline.tables),
    "step": ("Training step", step.tables),
    "memory": ("Memory of a step", memory.tables),
    "inference": ("Networks on one image", inference.tables),
    "scaling": ("Ranks", scaling.tables),
}
BARS = {"pipeline": pipeline.bars, "step": step.bars}


def report(arguments: list[str]) -> int:
    """Run `warpseg bench report`."""

    def run(
        files: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
        /,
        *,
        out: Path | None = None,
    ) -> None:
        """Write the tables of results.

        Args:
            files: results, JSON; all committed ones if none is given
            out: Markdown file to write, with plots beside it; else the tables are printed
        """
        page = markdown(
            files or sorted(RESULTS.glob("*.json")), None if out is None else out.parent
        )
        if out is None:
            print(page)
        else:
            out.write_text(page)
            print(out)

    tyro.cli(run, args=arguments, prog="warpseg bench report")
    return 0


def markdown(files: Sequence[Path], folder: Path | None = None) -> str:
    """Return the results of files as a page, which is to lie in `folder`, where plots go.

    Files of other kinds are left out. Raises ValueError where none is left.
    """
    parts = ["# Measured\n"]
    for file in files:
        result = json.loads(file.read_text())
        kind = kind_of(result)
        if kind not in TABLES:
            continue
        title, tables = TABLES[kind]
        parts.append(f"## {title}: {file.stem}\n")
        parts += [table.markdown() for table in tables(result)]
        if kind in BARS and folder is not None:
            picture = folder / f"{file.stem}.png"
            draw_bars(picture, f"{title}: {file.stem}, logarithmic", BARS[kind](result))
            parts.append(f"![{file.stem}]({picture.name})\n")
        link = os.path.relpath(file, folder) if folder is not None else file
        parts.append(f"[{file.name}]({link}): {_origin(result)}\n")
    if len(parts) == 1:
        raise ValueError(f"no results of warpseg bench among {len(files)} files; see --help")
    return "\n".join(parts)


def kind_of(result: Result) -> str:
    """Return the benchmark that made a result; earlier ones of the loaders do not say."""
    if not isinstance(result, dict):
        return ""
    return result.get("kind") or ("pipeline" if "cases" in result and "machine" in result else "")


def _origin(result: Result) -> str:
    """Say where, with what and how it was measured."""
    machine = result["machine"]
    load = f", load {machine['load']}" if machine.get("load") is not None else ""
    return (
        f"{machine['name']}, {machine.get('cores', '?')} cores{load}, torch {machine['torch']}, "
        f"commit {machine['commit']}, {machine['date']}; `{result.get('command', '')}`"
    )
