"""What came of training in rounds: which part is the answer, in numbers, words and a picture."""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from ....shards.archive import write_text
from ...charts import Curve, chart
from ...drawing import save_picture
from ...engine.checkpoint import NAME as CHECKPOINT
from ...engine.journal import FILE, read_rows
from ...engine.runtime import close_runtime, open_runtime
from ...methods.rounds import TrainPart, before, find_part
from ...tables import decimal, format_table, percent, text_of
from ..kept.folder import score
from ..kept.opening import open_trained
from ..kept.record import METRICS
from .folder import Rounds

log = logging.getLogger("warpseg")

SUMMARY, PICTURE = "summary.json", "rounds.png"
HEADINGS = ("part", "from", "labels", "steps", "images", "kept %", "val %", "seconds")
SELECTED_ON = {
    "last": "nothing: it is the last of the plan, at its last step",
    "held_out": "the images that the split holds out of training",
    "val": "the validation set, on which its score is therefore too good",
}


def write_summary(rounds: Rounds, held_out: dict[str, float]) -> dict[str, Any]:
    """Choose the answer of finished rounds, write summary, rows, checkpoint and picture, and
    return the summary.

    held_out: what `held_out_scores` returned.
    """
    records = {part.name: rounds.record(part) for part in rounds.parts}
    parts = {name: record for name, record in records.items() if record is not None}
    choice = rounds.settings.select
    scores = held_out
    if choice == "val":
        scores = {name: parts[name]["score"] for name in rounds.settings.candidates}
    result = max(scores, key=lambda name: scores[name]) if scores else rounds.settings.result
    summary = {
        "recipe": rounds.recipe,
        "split": rounds.split,
        "result": result,
        "select": choice,
        "selected_on": SELECTED_ON[choice],
        "candidates": scores,
        "metric": parts[result]["metric"],
        "score": parts[result]["score"],
        "evaluation": parts[result]["evaluation"],
        "steps": sum(part.get("steps", 0) for part in parts.values()),
        "seconds": sum(part["seconds"] for part in parts.values()),
        "parts": list(parts.values()),
    }
    summary["networks"] = _write_rows(rounds, summary).get("networks", {})
    _link(rounds.folder(result) / CHECKPOINT, rounds.out / CHECKPOINT)
    picture = draw_rounds(rounds, summary)
    if picture is not None:
        save_picture(picture, rounds.out / PICTURE)
    write_text(rounds.out / SUMMARY, json.dumps(summary, indent=1) + "\n")
    return summary


def table(summary: dict[str, Any]) -> str:
    """Return the parts as lines for a terminal, and which one is the answer."""
    rows = []
    for part in summary["parts"]:
        kept = part.get("kept")
        rows.append(
            (
                part["name"],
                text_of(part.get("start") or part.get("source")),
                text_of(part.get("labels")),
                text_of(part.get("steps")),
                text_of(part.get("images")),
                percent(kept),
                percent(part.get("score")),
                decimal(part["seconds"]),
            )
        )
    others = [f"{name} {percent(value)} %, " for name, value in summary["networks"].items()]
    answer = (
        f"answer: {summary['result']}, {summary['metric']} {percent(summary['score'])} %, "
        f"{''.join(others)}chosen on {summary['selected_on']}"
    )
    return f"{format_table(HEADINGS, rows)}\n{answer}"


def held_out_scores(rounds: Rounds) -> dict[str, float]:
    """Score the candidates on the images that the split holds out, if the answer is chosen there;
    on all ranks."""
    if rounds.settings.select != "held_out":
        return {}
    subset = rounds.dataset.subset("held_out", rounds.split)
    scores = {}
    for name in rounds.settings.candidates:
        settings = find_part(rounds.parts, name).settings
        runtime = open_runtime(rounds.device, settings.precision)
        trained = open_trained(rounds.folder(name))
        try:
            made = score(
                runtime.place(trained.network),
                subset,
                runtime,
                normalization=trained.normalization,
                evaluation=trained.evaluation,
                loader=settings.loader,
            ).to_json()
        finally:
            close_runtime()
        scores[name] = next(made[metric] for metric in METRICS if metric in made)
    return scores


def _write_rows(rounds: Rounds, summary: dict[str, Any]) -> dict[str, Any]:
    """Join the rows of all training parts, their steps counted on, the answer's score last; return
    that row, empty where there is no score."""
    rows: list[dict[str, Any]] = []
    answer: dict[str, Any] = {}
    before = 0
    for part in summary["parts"]:
        if part["kind"] != "train":
            continue
        for row in read_rows(rounds.folder(part["name"]) / FILE):
            rows.append({**row, "step": row["step"] + before, "part": part["name"]})
            if "losses" not in row and part["name"] == summary["result"]:
                answer = rows[-1]
        before += part["steps"]
    if answer:
        rows.append({**answer, "step": before})
    write_text(rounds.out / FILE, "".join(json.dumps(row) + "\n" for row in rows))
    return answer


def _link(source: Path, target: Path) -> None:
    """Let `target` be the same file as `source`, or a copy where the file system has no links."""
    aside = target.with_suffix(".partial")
    aside.unlink(missing_ok=True)
    try:
        os.link(source, aside)
    except OSError:
        shutil.copyfile(source, aside)
    os.replace(aside, target)
    # Where both already are one file, renaming is nothing, and says nothing.
    aside.unlink(missing_ok=True)


def draw_rounds(rounds: Rounds, summary: dict[str, Any]) -> Any:
    """Draw the validation score of each part (SimpleBaseline, Figures 6 and 8; DMT's rounds).

    A line joins a part with the one that labeled for it or that it started from; None where there
    is no score.
    """
    records = {part["name"]: part for part in summary["parts"]}
    curves = []
    for chain in chains(rounds):
        points = [
            (number, 100 * records[name]["score"])
            for number, name in enumerate(chain)
            if records[name]["score"] is not None
        ]
        if points:
            curves.append(Curve(" - ".join(dict.fromkeys((chain[0], chain[-1]))), points))
    if not curves:
        return None
    return chart(
        curves,
        title=f"{rounds.recipe}, split {rounds.split}",
        across="round",
        up=f"{summary['metric']} on val (%)",
        whole_numbers=True,
    )


def chains(rounds: Rounds) -> list[list[str]]:
    """Return the training parts as chains, each from one that starts from none to one that no other
    starts from; a part without a start follows the one whose labels it trains on."""
    train = [part for part in rounds.parts if isinstance(part, TrainPart)]
    earlier = {part.name: before(rounds.parts, part) for part in train}
    followed = set(earlier.values())
    made = []
    for last in earlier:
        if last in followed:
            continue
        chain = [last]
        while (name := earlier[chain[0]]) is not None:
            chain.insert(0, name)
        made.append(chain)
    return made
