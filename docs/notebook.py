"""Run docs/tour.py as a notebook and keep it with what it printed and drew: `make notebook`."""

import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).resolve().parent
FOLDER = re.compile(r"/\S*/warpseg-tour-\w+")
"""Where the notebook worked: no business of its readers."""
BAR = re.compile(r"\r|\d+%\||TqdmWarning|notebook_tqdm")
"""What a line of a bar that moved has, and the notebook's remark on bars."""


def executed(seconds: int = 600) -> nbformat.NotebookNode:
    """Return the notebook, run from the top; raise as its first cell that fails."""
    made = jupytext.read(DOCS / "tour.py")
    NotebookClient(made, timeout=seconds, kernel_name="python3").execute()
    for number, cell in enumerate(made.cells):
        # Neither times nor random names of cells: a second run differs in what was measured alone.
        cell["id"] = f"cell-{number}"
        cell["metadata"] = {}
        if "outputs" in cell:
            cell["outputs"] = tidied(cell["outputs"])
    return made


def tidied(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return the outputs of a cell: what was printed as one text, without bars that have gone and
    the folder's own name; pictures as PNG alone."""
    shown = [output for output in outputs if "data" in output]
    for output in shown:
        output["data"].pop("image/jpeg", None)
    printed = "".join(output["text"] for output in outputs if "text" in output)
    printed = FOLDER.sub("work", printed.replace("\r\n", "\n"))
    lines = [line for line in printed.split("\n") if not BAR.search(line)]
    text = "\n".join(lines).strip("\n")
    stream = [nbformat.v4.new_output("stream", name="stdout", text=f"{text}\n")] if text else []
    return stream + shown


if __name__ == "__main__":
    started = time.perf_counter()
    target = Path(sys.argv[1]) if sys.argv[1:] else DOCS / "tour.ipynb"
    nbformat.write(executed(), target)
    print(f"{target}: run in {time.perf_counter() - started:.0f} s")
