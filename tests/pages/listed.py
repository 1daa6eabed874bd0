"""Which commands of the pages are not run, or not by the quick tests, and why."""

import re

LISTED = {
    r"^make ": "CI runs them (.ci/run); tests/benchmarks/test_demo.py has the demo's words",
    r"^pip install ": "sets the environment up; tests/test_package.py compares the extras",
    r"^torchrun |^export TORCH_": "needs several GPUs or machines; tests/test_launch.py",
    r"^hf upload": "sends files to a hub",
    r"^(MASKS=13 )?benchmarks/\S+\.sh": "hours of training, or a GPU; the shell reads them below",
    r" bench (race|kernels|pipeline)": "trains for its budget, or measures for many minutes on a "
    "CPU; tests/benchmarks runs them small",
}
"""Commands that are not run, and why."""
PAPERS = {
    "docs/papers.md": "data sets and lists of the papers; tests/test_papers.py holds each row"
}
"""Pages that are not run, and why."""
SLOW = {
    r" bench (step|scaling|memory RECIPE)": "measures for minutes",
    r" compare ": "trains in processes of their own",
    r" fit ": "trains twice, and looks for the time that is left",
    r" --network\.(name|weights) ": "networks of their own size",
    r" convert synthetic ": "500 scenes",
    r" models ": "builds every network",
}
"""Commands that the quick tests leave out, and why."""


def matches(patterns, line):
    """Return the first pattern, a regular expression, that a line has, or None."""
    return next((pattern for pattern in patterns if re.search(pattern, line)), None)
