"""Tables and plots of results, as Markdown: every number beside its file and its device.

    warpseg bench report [FILES ...] [--out docs/results.md]

Without files, the committed ones are read: the JSON files of benchmarks/results that are results of
`warpseg bench`. `--out` also gets a plot of each step and pipeline beside the page.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..bars import draw_bars
from ..contenders import standings
from ..tables import Result
from ..words.given import Given
from ..words.trainings import ReportSettings
from . import inference, memory, pipeline, scaling, step
from .labels import masks, suggest

RESULTS = Path(__file__).parents[1] / "results"

TABLES = {
    "pipeline": ("Loaders", pipeline.tables),
    "step": ("Training step", step.tables),
    "memory": ("Memory of a step", memory.tables),
    "inference": ("Networks on one image", inference.tables),
    "scaling": ("Ranks", scaling.tables),
    "suggest": ("Which masks to draw next", suggest.tables),
    "masks": ("Spoiled masks found again", masks.tables),
    "race": ("Recipes at equal cost", standings.tables),
}
BARS = {"pipeline": pipeline.bars, "step": step.bars}


def report(given: Given) -> int:
    """Run `warpseg bench report`."""
    settings: ReportSettings = given.settings
    chosen, out = settings.files or committed(), settings.out
    if out is None:
        print(markdown(chosen, Path()))
    else:
        out.write_text(markdown(chosen, out.parent))
        draw(chosen, out.parent)
        print(out)
    return 0


def committed() -> list[Path]:
    """Return the result files of the repository."""
    return sorted(RESULTS.glob("*.json"))


def markdown(files: Sequence[Path], folder: Path) -> str:
    """Return the results of files as a page that is to lie in `folder`, with its plots.

    Files of other kinds are left out. Raises ValueError where none is left.
    """
    parts = ["# Measured\n", "Made by `warpseg bench report --out docs/results.md`.\n"]
    for file, kind, result in _known(files):
        title, tables = TABLES[kind]
        parts.append(f"## {title}: {file.stem}\n")
        parts += [table.markdown() for table in tables(result)]
        if kind in BARS:
            parts.append(f"![{file.stem}]({file.stem}.png)\n")
        parts.append(f"[{file.name}]({os.path.relpath(file, folder)}): {_origin(result)}\n")
    if len(parts) == 2:
        raise ValueError(f"no results of warpseg bench among {len(files)} files; see --help")
    return "\n".join(parts)


def draw(files: Sequence[Path], folder: Path) -> None:
    """Draw the plots of a page into its folder."""
    for file, kind, result in _known(files):
        if kind in BARS:
            title = f"{TABLES[kind][0]}: {file.stem}, logarithmic"
            draw_bars(folder / f"{file.stem}.png", title, BARS[kind](result))


def _known(files: Sequence[Path]) -> Iterator[tuple[Path, str, Result]]:
    for file in files:
        result = json.loads(file.read_text())
        kind = kind_of(result)
        if kind in TABLES:
            yield file, kind, result


def kind_of(result: Result) -> str:
    """Return the benchmark that made a result; earlier ones of the loaders do not say."""
    if not isinstance(result, dict):
        return ""
    return result.get("kind") or ("pipeline" if "cases" in result and "machine" in result else "")


def _origin(result: Result) -> str:
    """Say where, with what and how it was measured."""
    machine = result["machine"]
    load = f", load {machine['load']}" if machine.get("load") is not None else ""
    command = f"; `{result['command']}`" if "command" in result else ""
    return (
        f"{machine['name']}, {machine.get('cores', '?')} cores{load}, torch {machine['torch']}, "
        f"commit {machine['commit']}, {machine['date']}{command}"
    )
