"""A model card, README.md, as model hubs read it: the facts of a network in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ....models.network import trait
from ....models.weights.licences import said_of
from ..trained import TrainedNetwork
from .config import public_origin
from .quantized import Loss

FILE = "README.md"


def check_name(name: str) -> None:
    """Raise ValueError for a name that a hub does not take: NAME, or OWNER/NAME."""
    parts = name.split("/")
    plain = all(p and p.replace("-", "").replace("_", "").replace(".", "").isalnum() for p in parts)
    if len(parts) > 2 or not plain or not name.isascii() or len(name) > 96:
        raise ValueError(
            f"--hub takes OWNER/NAME, letters, digits, - _ and . alone, 96 at most; got {name!r}"
        )


def licence_of(trained: TrainedNetwork) -> str:
    """Return the licence of the weights that training began with, empty where there were none, a
    question mark where nobody knows."""
    began = trained.origin.get("weights", "?")
    if began in ("none", ""):
        return ""
    backbone: Any = getattr(trained.network, "backbone", None)
    own = "" if backbone is None else trait(backbone, "licence")
    published = began == "imagenet" or str(began).endswith("_V1") or str(began).endswith("_V2")
    return str(own) if published and own else "?"


def model_card(
    trained: TrainedNetwork,
    name: str,
    graph: Mapping[str, Any] | None,
    int8: Mapping[str, Any] | None = None,
) -> str:
    """Return the card: header in YAML for the hub, then data, split, protocol, score, licence.

    name: OWNER/NAME on the hub. graph: the facts of the graph that lies beside it, if one does;
    int8: what its form in 8 bits costs.
    """
    origin = public_origin(trained.origin)
    header = _header(trained, name, origin)
    score = _score_line(trained, origin)
    licence = licence_of(trained)
    sums = origin.get("sums") or {}
    lines = [
        *("---", *header, "---", "", f"# {name.split('/')[-1]}", ""),
        f"{trained.name}, trained with WarpSeg by recipe `{origin.get('recipe') or '-'}` "
        f"(method {origin.get('method') or '-'}), {origin.get('step', '?')} steps.",
        "",
        "| | |",
        "|---|---|",
        f"| Data | {origin.get('data_name') or 'not known'} |",
        f"| Split | {origin.get('split') or 'all masks'} |",
        *(f"| SHA-256 of {part} | `{value}` |" for part, value in sums.items()),
        f"| Protocol | {trained.evaluation.describe()} |",
        f"| Score | {score} |",
        f"| Licence of the weights that it began with | {_licence_words(licence)} |",
        f"| Classes | {', '.join(_cell(word) for word in trained.classes)} |",
        "",
        "## Use",
        "",
        "```sh",
        "warpseg predict . IMAGES --out masks          # or, in Python, warpseg.load(folder)",
        "```",
        "",
        *([] if graph is None else _graph_lines(graph)),
        *([] if int8 is None else ["", Loss(**int8).told()]),
    ]
    return "\n".join(lines) + "\n"


def _header(trained: TrainedNetwork, name: str, origin: Mapping[str, Any]) -> list[str]:
    licence = licence_of(trained)
    task = "image-segmentation" if trained.task == "segmentation" else "image-classification"
    lines = [
        *("library_name: warpseg", f"pipeline_tag: {task}"),
        *("tags:", "- warpseg", "- semantic-segmentation"),
    ]
    if licence not in ("", "?"):
        lines += ["license: other", f"license_name: {json.dumps(licence.lower())}"]
    metric = origin.get("score")
    if isinstance(metric, Mapping):
        kind = "mean_iou" if "miou" in metric else "accuracy"
        value = metric.get("miou", metric.get("accuracy"))
        data = json.dumps(str(origin.get("data_name") or "unknown"))
        lines += [
            *("model-index:", f"- name: {json.dumps(name.split('/')[-1])}", "  results:"),
            *("  - task:", f"      type: {task}", "    dataset:", f"      name: {data}"),
            *(f"      type: {data}", "      split: val", "    metrics:", f"    - type: {kind}"),
            *(f"      value: {json.dumps(value)}", f"      name: {kind}"),
        ]
    return lines


def _score_line(trained: TrainedNetwork, origin: Mapping[str, Any]) -> str:
    metric = origin.get("score")
    if not isinstance(metric, Mapping):
        return "not measured"
    value = metric.get("miou", metric.get("accuracy"))
    what = "mIoU" if "miou" in metric else "accuracy"
    return "not measured" if value is None else f"{what} {100 * value:.2f} % on val"


def _licence_words(licence: str) -> str:
    if licence == "?":
        return "not known: say it before you publish"
    return said_of(licence) if licence else "none: trained from scratch"


def _cell(word: str) -> str:
    return word.replace("|", "\\|").replace("\n", " ")


def _images(facts: Mapping[str, Any]) -> str:
    """Say what images a graph takes."""
    order, dtype, (_, highest) = (facts["input"][name] for name in ("order", "dtype", "range"))
    if order == "RGB":
        return "RGB images, uint8 (N, H, W, 3), levels 0 to 255"
    return f"images of {order}, {dtype} (N, H, W, C), levels 0 to {highest}"


def _graph_lines(facts: Mapping[str, Any]) -> list[str]:
    size = facts["input"]["size"]
    taken = f"{size[0]} x {size[1]} pixels" if size else "any size"
    same = (
        "Its labels are those of `warpseg predict`."
        if facts["as_predict"]
        else "It is one pass over the image, which the protocol above is not: its labels differ."
    )
    return [
        f"Without WarpSeg: `python label.py IMAGE MASK.png`. The graph takes {_images(facts)}, of "
        f"{taken}; normalisation is inside. {same}",
    ]
