"""What `make demo` is worth: its two scores over three seeds.

    make demo-scores        # trains what is missing under demo/, then writes the file

`python -m warpseg.benchmarks.demo COMPARISON.json OUT.json` keeps of a comparison (`warpseg
compare`) the scores, the seconds and the circumstances, and no path of this machine.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from .timing import circumstances

COMMAND = (
    "warpseg compare supervised-synthetic-dusk-swiftnet-lite0-tiny "
    "fixmatch-synthetic-dusk-swiftnet-lite0-tiny --data demo/data --split day --out demo/compared "
    "--jobs 2 --seeds 0 1 2; data: warpseg convert synthetic demo/data --dusk 0.5; split: "
    "--labeled 16 --by scene --no-masks-of dusk"
)
KEPT = (
    *("method", "recipe", "metric", "steps", "seeds", "scores", "mean", "std", "difference"),
    "groups",
)


def demo_result(comparison: dict[str, Any]) -> dict[str, Any]:
    """Return the committed form of a comparison: scores are shares of 1, those of groups of images
    are means over the seeds, and so are the seconds of one training."""
    return {
        "kind": "demo",
        "command": COMMAND,
        "evaluation": comparison["evaluation"],
        "methods": [
            {**{name: method[name] for name in KEPT}, "seconds": round(method["seconds"], 1)}
            for method in comparison["methods"]
        ],
        "machine": circumstances(torch.device("cpu")),
    }


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    made = demo_result(json.loads(source.read_text()))
    target.write_text(json.dumps(made, indent=1) + "\n")
    print(target)
