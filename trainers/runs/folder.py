"""A run folder: what it holds, how a new run claims it, and how a finished one is opened again.

RUN/settings.json     the resolved settings, the data set, the split, the versions and the plugins
RUN/metrics.jsonl     one object a line: training rows and evaluation rows
RUN/checkpoint.pt     everything the run needs to continue; also holds settings.json's content
RUN/checkpoints/      each step's checkpoint, if asked to keep them
"""

import json
import os
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ... import __version__, pipelines
from ...models import Ensemble, plain_state_dict
from ...pipelines.settings import LoaderSettings, NormalizationSettings
from ...plugins import only_named, recorded_plugins, require_plugins
from ...registry import noting_uses
from ...shards import Dataset, Subset
from ..engine.checkpoint import load_checkpoint
from ..engine.protocol import EvaluationSettings
from ..engine.runtime import Runtime
from ..engine.settings import RunSettings, first_difference, from_plain, to_plain
from ..methods.registry import ROUNDS, ensembles_of, method_name, settings_kind
from ..methods.rounds import RoundsSettings
from ..scoring.evaluate import Score, Task, evaluate_network
from ..scoring.export import CONFIG as EXPORT_CONFIG
from ..scoring.export import load_exported
from ..scoring.groups import groups_of
from ..scoring.trained import TrainedNetwork

_IMAGES_AT_ONCE = 250
"""Images that are classified together; segmented ones go one by one."""


def describe_run(
    settings: RunSettings | RoundsSettings, dataset: Dataset, split: str | None, *, recipe: str
) -> dict[str, Any]:
    """Return all that defines a run, as plain values."""
    return {
        "warpseg": __version__,
        "torch": str(torch.__version__),
        "recipe": recipe,
        "method": method_name(settings),
        "data": str(Path(dataset.root).resolve()),
        "split": split,
        "task": dataset.task,
        "classes": list(dataset.classes),
        "palette": [list(colour) for colour in dataset.palette],
        "settings": to_plain(settings),
        "plugins": recorded_plugins(),
    }


def claim_folder(out: Path, run: dict[str, Any], *, resume: bool) -> None:
    """Make the folder this run's, or check that it already is.

    Raise ValueError when it holds another run, or this one and `resume` is off; and as
    `require_plugins` for a plugin that is not the one it was begun with.
    """
    path = out / "settings.json"
    if path.exists():
        held = json.loads(path.read_text())
        if not resume:
            raise ValueError(
                f"{out} holds a run already; go on with --resume or choose another --out"
            )
        ranks, now = held.get("world_size"), run["world_size"]
        if ranks != now:
            raise ValueError(
                f"{out} was begun on {ranks} ranks and cannot go on with {now}, whose joined batch "
                f"is another one: start torchrun so that there are {ranks} in all"
            )
        require_plugins(held.get("plugins", ()), out)
        fixed = ("method", "split", "classes", "settings")
        before = {key: held.get(key) for key in fixed}
        if held["method"] == run["method"]:
            before["settings"] = completed_settings(held)
        different = first_difference(before, {key: run[key] for key in fixed})
        if different:
            raise ValueError(f"{out} cannot be resumed with other settings: {different}")
        return
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds other files; choose an empty or new folder for --out")
    out.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    aside.write_text(json.dumps(run, indent=2) + "\n")
    os.replace(aside, path)


def completed_settings(run: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run's file, those that are newer than the file as by default."""
    kind = ROUNDS[run["method"]] if run["method"] in ROUNDS else settings_kind(run["method"])
    try:
        return to_plain(from_plain(kind, run["settings"]))
    except ValueError:  # a setting that is gone since: the comparison names it
        return run["settings"]


def score(
    network: nn.Module,
    subset: Subset,
    runtime: Runtime,
    *,
    normalization: NormalizationSettings,
    evaluation: EvaluationSettings,
    loader: LoaderSettings,
) -> Score:
    """Score a network on the images and masks of a subset, on all ranks."""
    batches = pipelines.plain(
        subset,
        normalization=normalization,
        loader=loader,
        batch_size=_IMAGES_AT_ONCE if subset.dataset.task == "classification" else 1,
        device=runtime.device,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    return evaluate_network(
        network,
        batches,
        evaluation,
        class_names=subset.dataset.classes,
        device=runtime.device,
        task=cast(Task, subset.dataset.task),
        normalization=normalization,
        dtype=runtime.dtype,
        expected_images=len(subset),
        groups=groups_of(subset, evaluation.by),
    )


def open_trained(path: Path, *, network: str | None = None) -> TrainedNetwork:
    """Load a trained network, on the CPU, out of a run folder, a checkpoint or an export.

    `network` names another of a checkpoint's networks than the one its method evaluates, such as
    "teacher", or an ensemble of its method's. The plugins that the run was made with are loaded
    again. Raise FileNotFoundError and ValueError for what is none of these, and as
    `require_plugins`.
    """
    if (path / EXPORT_CONFIG).is_file():
        return load_exported(path)
    state = load_checkpoint(path)
    run, networks = state["run"], state["engine"]["networks"]
    require_plugins(run.get("plugins", ()), path)
    ensembles = ensembles_of(run["method"])
    name = network or run["evaluated"]
    if name not in networks and name not in ensembles:
        names = ", ".join([*networks, *ensembles])
        raise ValueError(f"{path} has no network {name!r}; it has: {names}")
    settings = from_plain(settings_kind(run["method"]), run["settings"])
    members = []
    with noting_uses() as used:
        for member in ensembles.get(name, (name,)):
            members.append(settings.network.build(len(run["classes"]), weights="none"))
            members[-1].load_state_dict(plain_state_dict(networks[member]))
    origin = {key: run[key] for key in ("recipe", "method", "split", "data", "warpseg")}
    return TrainedNetwork(
        network=Ensemble(members) if name in ensembles else members[0],
        name=settings.network.name,
        options=settings.network.parsed_options(),
        classes=tuple(run["classes"]),
        palette=tuple((r, g, b) for r, g, b in run["palette"]),
        normalization=settings.normalization,
        evaluation=settings.evaluation,
        task=run["task"],
        plugins=tuple(only_named(used)),
        origin={**origin, "network": name, "step": state["engine"]["step"]},
    )
