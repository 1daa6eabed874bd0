"""What a run says at its start, and what to do with it at its end."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from ...models.network import count_parameters
from ...pipelines.loaders.choosing import loader_name
from ...shards import Dataset, Subset
from ...shards.bands.bands import kind_words
from ..engine.runtime import Runtime
from ..engine.settings import RunSettings
from ..engine.stages import Method
from .batch import batch_words


class Begun(Protocol):
    """What a header tells of a run that is about to train."""

    settings: RunSettings
    runtime: Runtime
    method: Method
    dataset: Dataset
    validation: Subset | None
    streams: dict[str, Any]
    features: Path | None
    out: Path
    evaluate_every: int
    run: dict[str, Any]


def run_header(run: Begun) -> str:
    """Return lines that say what is about to be trained, on what, where and how."""
    settings, method, runtime = run.settings, run.method, run.runtime
    sizes = {name: spec.batch_size for name, spec in method.streams.items()}
    share = settings.pool.share
    images = ", ".join(
        _images(name, stream, share, whole=method.streams[name].subset == "all")
        for name, stream in run.streams.items()
    )
    scored = (
        f"{len(run.validation)} to score on" if run.validation is not None else "none to score on"
    )
    crop = "x".join(map(str, settings.geometry.crop_size))
    rows = {
        "network": _network(settings, method),
        "data": f"{run.dataset.root}, {_split(run.run)}, {len(run.dataset.classes)} classes",
        "images": f"{images}; {scored}{_channels(run)}",
        "batch": f"{batch_words(settings, sizes, runtime.world_size)}, {crop}",
        "steps": f"{settings.num_steps}, {_scores(run.validation, run.evaluate_every)}",
        "device": f"{_device(runtime)}, {runtime.precision}, {_loader(run)} loader",
        "folder": str(run.out),
    }
    if run.features is not None:
        rows["features"] = f"{run.features}, in place of the images of training"
    title = run.run["recipe"] or run.run["method"]
    return "\n".join([title, *(f"  {name:<8} {text}" for name, text in rows.items())])


def _images(name: str, stream: Any, share: float, *, whole: bool) -> str:
    """Return how many images a stream goes through, and where there are more of them than a split
    says, as labeled ones come `whole`, without their masks, too; addresses of a pool may hold keys,
    so they are not repeated."""
    if stream.lost and share == 1:
        return f"{name} ones from a pool alone"
    remarks = ["labeled ones among them"] if whole else []
    remarks += [f"{share:.0%} of those of a step from a pool"] if stream.lost else []
    told = f" ({'; '.join(remarks)})" if remarks else ""
    return f"{stream.epoch_size} {name}{told}"


def next_words(out: Path, task: str) -> str:
    """Return the commands to try with a run that is finished."""
    run = shlex.quote(str(out))
    words = [f"warpseg report {run} --html {shlex.quote(f'{out}.html')}"]
    if task == "segmentation":
        words.insert(0, f"warpseg predict {run} IMAGES --out {shlex.quote(f'{out}-labeled')}")
    return "\n".join(["next:", *(f"  {line}" for line in words)])


def _network(settings: RunSettings, method: Method) -> str:
    count = count_parameters(method.find_network(method.evaluated)) / 1e6
    weights = settings.network.weights
    told = "from scratch" if weights == "none" else f"weights {weights}"
    frozen = ", backbone frozen" if settings.network.freeze == "backbone" else ""
    return f"{settings.network.name}, {count:.1f} M parameters, {told}{frozen}"


def _split(run: Mapping[str, Any]) -> str:
    return f"split {run['split']}" if run["split"] else "no split: all masks"


def _scores(validation: Subset | None, interval: int) -> str:
    if validation is None:
        return "never scored"
    return f"scored every {interval}" if interval else "scored at the end"


def _channels(run: Begun) -> str:
    """Say which channels images have that are not RGB of 8 bits."""
    return "" if run.dataset.plain else f"; {kind_words(run.dataset.channels.kind)}"


def _loader(run: Begun) -> str:
    return loader_name(run.settings.loader, run.dataset.channels.kind)


def _device(runtime: Runtime) -> str:
    if runtime.device.type != "cuda":
        threads = torch.get_num_threads()
        return f"CPU, {threads} of {os.cpu_count()} cores"
    ranks = f" x {runtime.world_size} ranks" if runtime.world_size > 1 else ""
    return f"{torch.cuda.get_device_name(runtime.device)}{ranks}"
