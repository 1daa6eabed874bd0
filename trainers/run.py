"""A run folder: what it holds, how a new run claims it, and how a finished one is opened again.

RUN/settings.json     the resolved settings, the data set, the split and the versions
RUN/metrics.jsonl     one object a line: training rows and evaluation rows
RUN/checkpoint.pt     everything the run needs to continue; also holds settings.json's content
RUN/checkpoints/      each step's checkpoint, if asked to keep them
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import __version__, pipelines
from ..models import build_network
from ..shards import Dataset, Subset
from .checkpoint import load_checkpoint
from .evaluate import Score, evaluate_network
from .recipes import method_name, settings_kind
from .runtime import Runtime
from .settings import RunSettings, first_difference, from_plain, to_plain


def describe_run(
    settings: RunSettings, dataset: Dataset, split: str | None, *, recipe: str
) -> dict[str, Any]:
    """Return all that defines a run, as plain values."""
    return {
        "warpseg": __version__,
        "torch": torch.__version__,
        "recipe": recipe,
        "method": method_name(settings),
        "data": str(Path(dataset.root).resolve()),
        "split": split,
        "task": dataset.task,
        "classes": list(dataset.classes),
        "palette": [list(colour) for colour in dataset.palette],
        "settings": to_plain(settings),
    }


def claim_folder(out: Path, run: dict[str, Any], *, resume: bool) -> None:
    """Make the folder this run's, or check that it already is.

    Raise ValueError when it holds another run, or this one and `resume` is off.
    """
    path = out / "settings.json"
    if path.exists():
        held = json.loads(path.read_text())
        if not resume:
            raise ValueError(
                f"{out} holds a run already; go on with --resume or choose another --out"
            )
        fixed = ("method", "split", "classes", "world_size", "settings")
        different = first_difference(
            {key: held.get(key) for key in fixed}, {key: run[key] for key in fixed}
        )
        if different:
            raise ValueError(f"{out} cannot be resumed with other settings: {different}")
        return
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds other files; choose an empty or new folder for --out")
    out.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    aside.write_text(json.dumps(run, indent=2) + "\n")
    os.replace(aside, path)


def score(network: nn.Module, subset: Subset, settings: RunSettings, runtime: Runtime) -> Score:
    """Score a network on the images and masks of a subset, by the settings' protocol, on all ranks."""
    batches = pipelines.plain(
        subset,
        normalization=settings.normalization,
        loader=settings.loader,
        device=runtime.device,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    return evaluate_network(
        network,
        batches,
        settings.evaluation,
        class_names=subset.dataset.classes,
        device=runtime.device,
        task=subset.dataset.task,
        dtype=runtime.dtype,
        expected_images=len(subset),
    )


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A network out of a run's checkpoint, with what is needed to use it."""

    network: nn.Module
    settings: RunSettings
    run: dict[str, Any]
    step: int


def load_run(path: Path, *, network: str | None = None) -> TrainedRun:
    """Load the evaluated network of a run folder or checkpoint file, or another of its networks by
    name."""
    state = load_checkpoint(path)
    run = state["run"]
    settings = from_plain(settings_kind(run["method"]), run["settings"])
    states = state["engine"]["networks"]
    name = network or run["evaluated"]
    if name not in states:
        raise ValueError(f"{path} has no network {name!r}; it has: {', '.join(states)}")
    built = build_network(settings.network.name, len(run["classes"]), "none")
    built.load_state_dict(states[name])
    return TrainedRun(network=built, settings=settings, run=run, step=state["engine"]["step"])
