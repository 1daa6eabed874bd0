"""A run folder: what it holds, and how a run claims it.

RUN/settings.json     the resolved settings, the data set, the split, their sums, versions, plugins,
                      the sum of the features that it was trained on, if any
RUN/metrics.jsonl     one object a line: training rows and evaluation rows
RUN/images.json       the last score of each validation image by itself
RUN/checkpoint.pt     everything the run needs to continue; also holds settings.json's content
RUN/checkpoints/      each step's checkpoint, if asked to keep them
RUN/logs/             what ranks other than the first had to say
RUN/diverged.txt      why nothing was saved any more, if the weights became no numbers
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

import torch
from torch import nn

from .... import __version__, pipelines
from ....pipelines.normalization import NormalizationSettings
from ....pipelines.settings import LoaderSettings
from ....plain import read_json
from ....plugins import recorded_plugins, require_plugins
from ....shards import Dataset, Subset
from ....shards.archive import write_text
from ...engine.processes.locking import LOCK
from ...engine.processes.ranks import LOGS
from ...engine.processes.stopping import Stop, Stopped, never
from ...engine.protocol import EvaluationSettings
from ...engine.runtime import Runtime
from ...engine.settings import RunSettings, first_difference, from_plain, to_plain
from ...methods.registry import ROUNDS, method_name, settings_kind
from ...methods.rounds import RoundsSettings
from ...scoring.evaluate import evaluate_network
from ...scoring.groups import groups_of
from ...scoring.score import Score, Task
from .sums import data_sums, features_sum, other_data

SETTINGS = "settings.json"
LEFTOVERS = (LOCK, LOGS, "settings.partial", "settings.json.tmp")
"""What a run that was killed while it claimed a folder leaves there."""
FIXED = ("method", "split", "classes", "settings")
"""Entries of settings.json that a resumed run has as it had them before."""
_IMAGES_AT_ONCE = 250
"""Images that are classified together; segmented ones go one by one."""


class RunFile(TypedDict):
    """Content of settings.json, and of `run` in a checkpoint."""

    warpseg: str
    torch: str
    recipe: str
    method: str
    data: str
    split: str | None
    task: Literal["segmentation", "classification"]
    classes: list[str]
    palette: list[tuple[int, int, int]]
    settings: dict[str, Any]
    channels: NotRequired[dict[str, Any]]
    sums: NotRequired[dict[str, str]]
    plugins: NotRequired[list[dict[str, Any]]]
    world_size: NotRequired[int | None]
    evaluated: NotRequired[str]
    features: NotRequired[str | None]


def describe_run(
    settings: RunSettings | RoundsSettings,
    dataset: Dataset,
    split: str | None,
    *,
    recipe: str,
    features: Path | None = None,
) -> dict[str, Any]:
    """Return all that defines a run, as plain values. features: a folder of them, in place of the
    images of training."""
    labels = getattr(settings, "labels", "")  # of rounds, settings of another kind
    folder = Path(labels) if isinstance(labels, str) and labels else None
    channels = {} if dataset.plain else {"channels": dataset.channels.to_json()}
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
        **channels,
        "settings": to_plain(settings),
        "sums": data_sums(dataset, split, folder),
        "plugins": recorded_plugins(),
        "features": None if features is None else features_sum(features),
    }


def read_settings(run: Path) -> dict[str, Any]:
    """Read what a run's folder says of the run.

    Raises FileNotFoundError where there is no settings.json and ValueError for a damaged one.
    """
    remedy = "bring it back from a copy, or train anew in another folder"
    return cast(dict[str, Any], read_json(run / SETTINGS, RunFile, remedy))


def refuse_taken(out: Path, *, resume: bool) -> None:
    """Raise ValueError for a folder that cannot become a new run's, before anything is built for
    it: it holds a run that is not to go on, or other files."""
    if (out / SETTINGS).exists():
        if not resume:
            raise ValueError(
                f"{out} holds a run already; go on with --resume or choose another --out"
            )
    elif out.exists() and any(file.name not in LEFTOVERS for file in out.iterdir()):
        raise ValueError(f"{out} holds other files; choose an empty or new folder for --out")


def claim_folder(out: Path, run: dict[str, Any], *, resume: bool) -> bool:
    """Make the folder this run's, or check that it already is; tell whether it is new.

    What a run left that was killed while it did this is no hindrance. Raise ValueError when the
    folder holds another run, or this one and `resume` is off, or this one on other data.
    """
    path = out / SETTINGS
    refuse_taken(out, resume=resume)
    if path.exists():
        check_same(out, read_settings(out), run)
        return False
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(run, indent=2) + "\n")
    for name in LEFTOVERS[2:]:
        (out / name).unlink(missing_ok=True)
    return True


def check_same(out: Path, held: dict[str, Any], run: dict[str, Any]) -> None:
    """Raise ValueError where a run that was begun is not the one that shall go on: other ranks,
    settings or data; and as `require_plugins` for a plugin that is not the one it was begun with.
    """
    ranks, now = held.get("world_size"), run["world_size"]
    if ranks != now:
        raise ValueError(
            f"{out} was begun on {ranks} ranks and cannot go on with {now}, whose joined batch "
            f"is another one: start torchrun so that there are {ranks} in all"
        )
    require_plugins(held.get("plugins", ()), out)
    before = {key: held.get(key) for key in FIXED}
    if before["method"] == run["method"]:
        before["settings"] = completed_settings(held)
    different = first_difference(before, {key: run[key] for key in FIXED})
    if different:
        raise ValueError(f"{out} cannot be resumed with other settings: {different}")
    if held.get("features") != run.get("features"):
        theirs, ours = (_fed_with(one.get("features")) for one in (held, run))
        raise ValueError(
            f"{out} was begun on {theirs} and cannot go on with {ours}: name by --features the "
            "folder that it had, or none where it had none"
        )
    changed = other_data(held.get("sums"), run["sums"])
    if changed:
        raise ValueError(
            f"{out} was begun on other data: {changed} of {run['data']} is not what it was; bring "
            "the old data back, or choose another --out"
        )


def _fed_with(features: str | None) -> str:
    return "images" if features is None else f"the features {features[:12]}"


def release_folder(out: Path) -> None:
    """Take back what `claim_folder` wrote, for a run that could not make its first step."""
    for name in (*LEFTOVERS[2:], SETTINGS):
        (out / name).unlink(missing_ok=True)


def completed_settings(run: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run's file, those that are newer than the file as by default, or
    as they were before there was a choice."""
    held = run["settings"]
    kind = ROUNDS[run["method"]] if run["method"] in ROUNDS else settings_kind(run["method"])
    if issubclass(kind, RunSettings):
        held = kind.of_older(held)
    try:
        return to_plain(from_plain(kind, held))
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
    stop: Stop = never,
) -> Score:
    """Score a network on the images and masks of a subset, on all ranks.

    Raises as `evaluate_network`, and Stopped soon after `stop`, heard on one rank alone, says so.
    """
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
        _until(stop, batches) if runtime.world_size == 1 else batches,
        evaluation,
        class_names=subset.dataset.classes,
        device=runtime.device,
        task=cast(Task, subset.dataset.task),
        normalization=normalization,
        dtype=runtime.dtype,
        expected_images=len(subset),
        groups=groups_of(subset, evaluation.by),
    )


def _until(stop: Stop, batches: Any) -> Iterator[Any]:
    for batch in batches:
        if stop():
            raise Stopped
        yield batch
