"""What `make demo` is worth: its two scores over three seeds.

    make demo-scores        # trains what is missing under demo/, then writes the file and the pages

`python -m warpseg.benchmarks.demo COMPARISON.json OUT.json` keeps of a comparison (`warpseg
compare`) the scores, the seconds and the circumstances, and no path of this machine. README.md and
docs/scores.md, where they lie in the working folder, then state these scores.
"""

import json
import re
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
    seeds = " ".join(map(str, comparison["methods"][0]["seeds"]))
    return {
        "kind": "demo",
        "command": COMMAND.replace("--seeds 0 1 2", f"--seeds {seeds}"),
        "evaluation": comparison["evaluation"],
        "methods": [
            {**{name: method[name] for name in KEPT}, "seconds": round(method["seconds"], 1)}
            for method in comparison["methods"]
        ],
        "machine": circumstances(torch.device("cpu")),
    }


def readme_scores(result: dict[str, Any]) -> str:
    """Return what the README says of the scores."""
    alone, both = (f"{100 * method['mean']:.1f}" for method in result["methods"])
    seeds = result["methods"][0]["seeds"]
    told = f"mean of seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return f"[{alone} and {both} % mIoU, {told}](docs/scores.md)"


def table_rows(result: dict[str, Any]) -> dict[str, str]:
    """Return the rows of docs/scores.md by recipe: scores by seed, their mean, by day, at dusk."""
    rows = {}
    for method in result["methods"]:
        means = [method["mean"], *(method["groups"][name] for name in ("day", "dusk"))]
        scores = ", ".join(f"{100 * score:.1f}" for score in method["scores"])
        cells = [f"`{method['recipe']}`", scores, *(f"{100 * mean:.1f}" for mean in means)]
        rows[method["recipe"]] = f"| {' | '.join(cells)} |"
    return rows


def state(result: dict[str, Any], folder: Path) -> None:
    """Put the scores into README.md and docs/scores.md of a folder. Raise ValueError where these
    have no place for them."""
    places = {r"\[[\d.]+ and [\d.]+ % mIoU, [^]]*\]\(docs/scores\.md\)": readme_scores(result)}
    _replace(folder / "README.md", places)
    rows = {rf"^\| `{re.escape(recipe)}` .*$": row for recipe, row in table_rows(result).items()}
    _replace(folder / "docs" / "scores.md", rows)


def _replace(file: Path, places: dict[str, str]) -> None:
    text = file.read_text()
    for pattern, words in places.items():
        text, count = re.subn(pattern, words, text, flags=re.M)
        if count != 1:
            raise ValueError(f"{file} has {count} places for {words!r}: it needs one")
    file.write_text(text)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    made = demo_result(json.loads(source.read_text()))
    target.write_text(json.dumps(made, indent=1) + "\n")
    print(target)
    if Path("README.md").is_file():
        state(made, Path())
