"""What the verbs do, as functions of Python: `warpseg.train`, `evaluate`, `predict`, `load`,
`compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...pipelines.settings import LoaderSettings
from ...shards import Dataset
from ...shards.dataset import SPLIT_SIDES
from ..engine.protocol import EvaluationSettings
from ..engine.runtime import close_runtime, open_runtime
from ..engine.settings import RunSettings
from ..engine.speed import Precision
from ..methods.rounds import RoundsSettings
from ..recipes.changes import change_settings, words_of
from ..recipes.registry import find_recipe
from ..reports.comparison import Comparison
from ..runs.folder import open_trained, score
from ..runs.record import Run, load_run
from ..runs.start import start
from ..runs.sums import data_sums, other_data, sums_of
from ..scoring.evaluate import Score
from ..scoring.predict import PredictReport, predict_images
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
    **changes: Any,
) -> Run:
    """Train by a recipe into the folder `out` and return what the run recorded.

    recipe: the name of one, or settings. data: a converted data set; split: a split of it, without
    one all masks are used. resume: go on from the folder's last checkpoint. device: auto, cpu, cuda
    or cuda:N. profile: steps to profile, of a run; jobs: parts side by side, of rounds. changes:
    settings by name, groups as mappings or settings: `num_steps=400, optimizer={"lr": 1e-4}`; of a
    method with rounds, those of a single run hold for all parts, and `num_steps` is the total.

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
    """Label image files, or the images in folders, into the folder `out`: masks and overlays.

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
        [Path(path) for path in paths],
        Path(out),
        settings,
        device=runtime.device,
        dtype=runtime.dtype,
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


def data_of(
    trained: TrainedNetwork, data: str | Path | Dataset | None, parts: Sequence[str] | None = None
) -> Dataset:
    """Open the data set that is named, or that of the run.

    Raises ValueError where classes differ, and where the run's own data set is no more what the run
    was trained on, in the parts (of `data_sums`) that are asked for, by default all.
    """
    opened = data if isinstance(data, Dataset) else Dataset.open(data or trained.origin["data"])
    if opened.classes != trained.classes:
        raise ValueError(
            f"the network knows {len(trained.classes)} classes ({', '.join(trained.classes)}), but "
            f"{opened.root} has {len(opened.classes)} ({', '.join(opened.classes)}); "
            "choose the data set that it was trained for with --data"
        )
    if data is None:
        held = sums_of(trained.origin)
        asked = {name: held[name] for name in (held if parts is None else parts) if name in held}
        sided = parts is None or any(name.startswith("side ") for name in parts)
        split = trained.origin.get("split") if sided else None
        changed = other_data(asked, data_sums(opened, split))
        if changed:
            raise ValueError(
                f"{opened.root} is no more what the network was trained on ({changed} is not what "
                "it was); bring it back, or name a data set with --data"
            )
    return opened


def _open(run: Trained, network: str | None) -> TrainedNetwork:
    if not isinstance(run, TrainedNetwork):
        return open_trained(run.path if isinstance(run, Run) else Path(run), network=network)
    if network is not None:
        raise ValueError(f"network {network!r} is chosen when a run is loaded: load(run, network=)")
    return run


def _root_of(data: str | Path | Dataset) -> Path:
    return Path(data.root if isinstance(data, Dataset) else data)
