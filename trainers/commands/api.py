"""What the verbs do, as functions of Python: `warpseg.train`, `evaluate`, `predict`, `load`,
`suggest`, `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...pipelines.settings import LoaderSettings
from ...shards import Dataset, Subset
from ...shards.dataset import SPLIT_SIDES
from ..engine.processes.stopping import Stop, never
from ..engine.protocol import EvaluationSettings
from ..engine.runtime import close_runtime, open_runtime
from ..engine.settings import RunSettings
from ..engine.speed import Precision
from ..engine.streams import open_subset
from ..labels.suggesting.settings import SuggestSettings
from ..labels.suggesting.suggest import Suggestion, suggest_images
from ..methods.rounds import RoundsSettings
from ..recipes.changes import change_settings, words_of
from ..recipes.registry import find_recipe
from ..reports.comparison import Comparison
from ..reports.suggestions import draw_suggestions
from ..runs.kept.data import data_of
from ..runs.kept.folder import score
from ..runs.kept.opening import open_networks, open_trained
from ..runs.kept.record import Run, load_run
from ..runs.start import start
from ..scoring.predict import PredictReport, label_one, predict_images
from ..scoring.score import Score
from ..scoring.settings import PredictSettings
from ..scoring.trained import TrainedNetwork
from .compare import CompareSettings, run_comparison

Trained = str | Path | Run | TrainedNetwork
"""A run's folder, a checkpoint or an export; what `train` returned; or what `load` did."""


def train(
    recipe: str | RunSettings | RoundsSettings,
    *,
    data: str | Path | Dataset,
    out: str | Path,
    split: str | None = None,
    resume: bool = False,
    device: str = "auto",
    profile: int = 0,
    jobs: int = 1,
    features: str | Path | None = None,
    **changes: Any,
) -> Run:
    """Train by a recipe into the folder `out` and return what the run recorded.

    recipe: the name of one, or settings. data: a converted data set; split: a split of it, without
    one all masks are used. resume: go on from the folder's last checkpoint. device: auto, cpu, cuda
    or cuda:N. profile: steps to profile, of a run; jobs: parts side by side, of rounds. features: a
    folder of them, in place of the images of a run with a frozen encoder. changes: settings by
    name, groups as mappings or settings: `num_steps=400, optimizer={"lr": 1e-4}`; of a method with
    rounds, those of a single run hold for all parts, and `num_steps` is the total.

    The answer's network is `load(run)`. Raises ValueError or FileNotFoundError, in one sentence,
    for what the command would refuse.
    """
    name = recipe if isinstance(recipe, str) else ""
    settings = find_recipe(recipe) if isinstance(recipe, str) else recipe
    start(
        change_settings(settings, changes),
        data=_root_of(data),
        out=Path(out),
        split=split,
        resume=resume,
        device=device,
        recipe=name,
        profile=profile,
        jobs=jobs,
        features=None if features is None else Path(features),
    )
    return load_run(Path(out))


def load(run: Trained, *, network: str | None = None, device: str = "auto") -> TrainedNetwork:
    """Load a trained network, on a device and in evaluation mode, with its input statistics,
    classes, palette and protocol; its `predict` labels images.

    network: another one of the run's than its answer, such as "teacher"; of MKD also "ensemble".
    Raises FileNotFoundError and ValueError for what is no trained network.
    """
    trained = _open(run, network)
    open_runtime(device).place(trained.network).eval()
    return trained


def evaluate(
    run: Trained,
    *,
    data: str | Path | Dataset | None = None,
    subset: str = "val",
    split: str | None = None,
    network: str | None = None,
    evaluation: EvaluationSettings | None = None,
    loader: LoaderSettings | None = None,
    precision: Precision = "auto",
    device: str = "auto",
) -> Score:
    """Score a trained network on images with masks, on all ranks.

    data: the data set; the one of the run when not given. subset: one of the data set, or a side of
    a split (labeled, held_out): of `split`, the run's when not given. evaluation: the protocol; the
    run's own when not given. Raises ValueError for a data set of other classes, for images without
    masks and for a network that returns no finite numbers.
    """
    trained = _open(run, network)
    split = (split or trained.origin.get("split")) if subset in SPLIT_SIDES else None
    named = f"subset {subset}" if split is None else f"side {subset} of split {split}"
    dataset = data_of(trained, data, [named])
    runtime = open_runtime(device, precision)
    try:
        return score(
            runtime.place(trained.network),
            dataset.subset(subset, split),
            runtime,
            normalization=trained.normalization,
            evaluation=evaluation or trained.evaluation,
            loader=loader or LoaderSettings(),
        )
    finally:
        close_runtime()


def predict(
    run: Trained,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    settings: PredictSettings | None = None,
    evaluation: EvaluationSettings | None = None,
    network: str | None = None,
    precision: Precision = "auto",
    device: str = "auto",
) -> PredictReport:
    """Label image files, the images in folders, patterns, URLs and videos into the folder `out`:
    masks and overlays.

    For masks as arrays see `load`. Raises as `predict_images`.
    """
    trained = _open(run, network)
    if evaluation is not None:
        trained = replace(trained, evaluation=evaluation)
    runtime = open_runtime(device, precision)
    runtime.place(trained.network)
    paths = [images] if isinstance(images, str | Path) else images
    return predict_images(
        trained,
        paths,
        Path(out),
        settings,
        device=runtime.device,
        dtype=runtime.dtype,
    )


def label_to(
    run: Trained,
    images: Sequence[str],
    evaluation: EvaluationSettings,
    network: str | None,
    precision: Precision,
    device: str,
) -> bytes:
    """Label one image and return its mask, a PNG, as bytes. Raises as `label_one`."""
    trained = replace(_open(run, network), evaluation=evaluation)
    runtime = open_runtime(device, precision)
    runtime.place(trained.network)
    return label_one(trained, images, device=runtime.device, dtype=runtime.dtype)


def suggest(
    runs: Trained | Sequence[Trained],
    out: str | Path,
    *,
    data: str | Path | Dataset | None = None,
    split: str | None = None,
    settings: SuggestSettings | None = None,
    loader: LoaderSettings | None = None,
    precision: Precision = "auto",
    device: str = "auto",
    stop: Stop = never,
) -> list[Suggestion]:
    """Choose which images, or regions, to draw masks for next, into the folder `out`: a list for
    `warpseg split --add`, a contact sheet, the images, and labels for a tool to begin from.

    runs: trained networks, of which several may disagree; of a run's folder all its networks are
    asked. data: the data set, and split: the split whose unlabeled images are the pool; those of
    the first run when not given. No mask of the pool is opened. Raises as `suggest_images`.
    """
    listed = [runs] if isinstance(runs, Trained) else list(runs)
    if not listed:
        raise ValueError("name at least one run to suggest by")
    networks = [_networks(run) for run in listed]
    first = networks[0][0]
    dataset = data_of(first, data, None if split is None else [])
    own = first.origin.get("split")
    split = split or (own if own in dataset.splits else None)
    return suggest_images(
        networks,
        *_pool(dataset, split),
        Path(out),
        settings or SuggestSettings(),
        open_runtime(device, precision),
        loader=loader,
        stop=stop,
        draw=lambda made: draw_suggestions(made, dataset, Path(out)),
    )


def _networks(run: Trained) -> list[TrainedNetwork]:
    if isinstance(run, TrainedNetwork):
        return [run]
    return open_networks(run.path if isinstance(run, Run) else Path(run))


def _pool(dataset: Dataset, split: str | None) -> tuple[Subset, Subset | None]:
    """Return the images without masks and those with; without a split those that came so."""
    if split is None and "unlabeled" not in dataset.subsets:
        raise ValueError(
            f"{dataset.root} has a mask for every image: say by --split which split hides some, "
            "or convert the data set with its unlabeled images"
        )
    labeled = split is not None or "train" in dataset.subsets
    return (
        open_subset(dataset, "unlabeled", split),
        open_subset(dataset, "labeled", split) if labeled else None,
    )


def compare(
    recipes: Sequence[str],
    *,
    data: str | Path | Dataset,
    out: str | Path,
    split: str | None = None,
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
    devices: Sequence[str] = ("auto",),
    images: int = 4,
    **changes: Any,
) -> Comparison:
    """Train recipes over seeds on one split where that is missing, each in a process of its own,
    and return their comparison; `out` receives runs, table, page and pictures.

    changes: settings of all recipes, as those of `train`. Raises as `run_comparison`.
    """
    settings = CompareSettings(
        data=_root_of(data),
        out=Path(out),
        split=split,
        seeds=tuple(seeds),
        jobs=jobs,
        devices=tuple(devices),
        images=images,
    )
    words = [word for option in words_of(changes) for word in option]
    return run_comparison(recipes, settings, words)


def _open(run: Trained, network: str | None) -> TrainedNetwork:
    if not isinstance(run, TrainedNetwork):
        return open_trained(run.path if isinstance(run, Run) else Path(run), network=network)
    if network is not None:
        raise ValueError(f"network {network!r} is chosen when a run is loaded: load(run, network=)")
    return run


def _root_of(data: str | Path | Dataset) -> Path:
    return Path(data.root if isinstance(data, Dataset) else data)
