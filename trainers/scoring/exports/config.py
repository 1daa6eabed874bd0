"""What an export says of itself: config.json, and the same facts inside weights and graphs.

All that is needed to use the network is there (classes, colours, what images it takes, how it was
scored), and nothing of the machine that made it: no path, no name of a user.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Literal, NotRequired, TypedDict

import torch

from .... import __version__
from ....shards.archive import sha256_of, write_text
from ....shards.bands.bands import PLAIN, Bands
from ...engine.settings import to_plain
from ..inference import Size
from ..trained import TrainedNetwork

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
KEY = "warpseg"
"""Under which weights and graphs hold the facts, as JSON."""
_BY = ("scene", "folder")


class Config(TypedDict):
    """Content of config.json. `sha256` is of the other entries, `files` holds those of the files
    beside it; exports before them have neither."""

    warpseg_format: int
    network: str
    options: dict[str, Any]
    task: Literal["segmentation", "classification"]
    classes: list[str]
    palette: list[tuple[int, int, int]]
    normalization: dict[str, Any]
    evaluation: dict[str, Any]
    origin: dict[str, Any]
    channels: NotRequired[dict[str, Any]]
    plugins: NotRequired[list[dict[str, str]]]
    files: NotRequired[dict[str, str]]
    sha256: NotRequired[str]


def own_size(trained: TrainedNetwork) -> Size:
    """Return the height and width that the network is made for: those of its protocol (resized
    images, windows, padding), or of the crops that it was trained on; 512 x 512 if none is known.
    """
    asked = trained.evaluation
    known = (asked.size, asked.crop_size, asked.pad_to, trained.origin.get("crop_size"))
    height, width = next((size for size in known if size), (512, 512))
    return int(height), int(width)


def one_pass(trained: TrainedNetwork) -> bool:
    """Tell whether the protocol is one pass over the image as it is: what a graph does."""
    asked = trained.evaluation
    plain = asked.mode == "whole" and not asked.flip and asked.scales == (1.0,)
    return plain and asked.bound is None and asked.pad_to is None and asked.multiple == 1


def facts_of(trained: TrainedNetwork) -> dict[str, Any]:
    """Return what weights and graphs say in common, as plain values."""
    height, width = own_size(trained)
    return {
        "format": FORMAT,
        "network": trained.name,
        "task": trained.task,
        "classes": list(trained.classes),
        "palette": [list(colour) for colour in trained.palette],
        "protocol": trained.evaluation.describe(),
        "protocol_size": [height, width],
        "versions": {"warpseg": __version__, "torch": str(torch.__version__)},
    }


def bands_of(trained: TrainedNetwork) -> Bands:
    """Return channels and bits of a network's images."""
    return trained.channels or Bands(count=PLAIN[0], bits=PLAIN[1])


def _order(trained: TrainedNetwork) -> str:
    """Say which channels come in what order."""
    return (
        "RGB" if trained.channels is None else f"{trained.channels.count} channels, as trained on"
    )


def facts_of_weights(trained: TrainedNetwork) -> dict[str, Any]:
    """Return the facts of model.safetensors: the caller normalises, and enlarges the logits."""
    look = trained.normalization
    return facts_of(trained) | {
        "input": {
            "layout": "NCHW",
            "dtype": "float32",
            "order": _order(trained),
            "range": [0, 1],
            "normalization": {"mean": list(look.mean), "std": list(look.std)},
        },
        "output": {"layout": "NCHW", "stride": getattr(trained.network, "output_stride", None)},
    }


def facts_of_graph(
    trained: TrainedNetwork, size: Size | None, least: int, largest: int
) -> dict[str, Any]:
    """Return the facts of a graph of images of one size, or of any from `least` to `largest`."""
    whole, bands = trained.task == "classification", bands_of(trained)
    return facts_of(trained) | {
        "input": {
            "name": "image",
            "layout": "NHWC",
            "dtype": "uint8" if bands.bits == 8 else "uint16",
            "order": _order(trained),
            "range": [0, bands.highest],
            "size": None if size is None else list(size),
            "sizes": [least, largest] if size is None else None,
            "normalization": "inside the graph",
        },
        "output": {
            "name": "logits",
            "layout": "NC" if whole else "NCHW",
            "dtype": "float32",
            "size": None if whole else "that of the image",
            "label": "argmax over C",
        },
        "as_predict": one_pass(trained),
    }


def write_config(trained: TrainedNetwork, folder: Path, half: bool, **more: Any) -> None:
    """Write config.json, with the sums of the files beside it and its own; `more` are further
    entries."""
    config: dict[str, Any] = {
        "warpseg_format": FORMAT,
        "warpseg_version": __version__,
        "network": trained.name,
        "options": dict(trained.options),
        "task": trained.task,
        "plugins": [_placeless(record) for record in trained.plugins],
        "num_classes": len(trained.classes),
        "classes": list(trained.classes),
        "palette": [list(colour) for colour in trained.palette],
        "normalization": to_plain(trained.normalization),
        **({} if trained.channels is None else {"channels": trained.channels.to_json()}),
        "evaluation": public_evaluation(to_plain(trained.evaluation)),
        "dtype": "float16" if half else "float32",
        "origin": public_origin(trained.origin),
        "facts": facts_of_weights(trained),
        **more,
        "files": {f.name: sha256_of(f) for f in sorted(folder.iterdir()) if f.name != CONFIG},
    }
    config["sha256"] = sum_of(json.loads(json.dumps(config)))
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in config.items()]
    write_text(folder / CONFIG, "{\n" + ",\n".join(lines) + "\n}\n")


def public_origin(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a network comes from without the places of files: of the data set and of
    weights their names."""
    told = {key: value for key, value in origin.items() if key != "data"}
    if "data" in origin:
        told["data_name"] = PurePath(str(origin["data"])).name
    if "weights" in told:
        told["weights"] = PurePath(str(told["weights"])).name
    return told


def public_evaluation(plain: dict[str, Any]) -> dict[str, Any]:
    """Return a protocol without the file that groups of images are named in."""
    by = plain.get("by")
    named = by is None or by in _BY or not PurePath(by).suffix
    return plain if named else {**plain, "by": None}


def _placeless(record: Mapping[str, str]) -> dict[str, str]:
    """Return the record of a plugin without its folder: who opens the export names the file."""
    return {**record, "path": f"/{PurePath(record['path']).name}"}


def check_sums(folder: Path, config: dict[str, Any]) -> None:
    """Raise ValueError where config.json, or a file beside it, is not what was written."""
    total = config.pop("sha256", None)
    if total is not None and total != sum_of(config):
        raise ValueError(f'{CONFIG} was changed; if that was meant, remove its last line, "sha256"')
    for name in (WEIGHTS,):
        known = config.get("files", {}).get(name)
        if known is not None and sha256_of(folder / name) != known:
            raise ValueError(f"{name} does not have the checksum that {CONFIG} says")


def sum_of(config: dict[str, Any]) -> str:
    """Return the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
