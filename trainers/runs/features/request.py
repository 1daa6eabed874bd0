"""What decides a folder of features: encoder, views, images; which runs they can stand for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from ....models import SegmentationNetwork
from ....pipelines.loaders.choosing import loader_name
from ....plain import typed
from ....shards import Dataset
from ....shards.features.encoding import Encoding
from ....shards.features.folder import load_feature_manifest, write_feature_manifest
from ....shards.manifest import FILE as MANIFEST
from ...engine.processes.locking import LOCK
from ...engine.runtime import Runtime
from ...engine.settings import RunSettings, first_difference, to_plain
from ...engine.stages import Method
from ...engine.streams import StreamSpec
from ...labels.request import state_sum
from ...methods.registry import method_name
from ..kept.sums import data_sums, other_data

PROBE = 0.02
"""Share by which an encoder's answer to the probe may differ: other devices and precisions round
otherwise, another encoder answers otherwise."""
MOVED = ("data", "recipe", "method")
"""What does not decide the features, and may be another."""


def refuse_unfit(settings: RunSettings, dataset: Dataset) -> None:
    """Raise ValueError where features that are stored cannot stand for the images of a run."""
    if settings.network.freeze != "backbone":
        raise ValueError(
            "features are kept of an encoder that does not learn, and this one does: add "
            "--network.freeze backbone, without --network.lora-rank, or train live"
        )
    if dataset.task != "segmentation":
        raise ValueError(
            f"features are for segmentation, and {dataset.root} holds data for {dataset.task}: "
            "train live"
        )
    if settings.pool.urls:
        raise ValueError(
            "images of a pool do not come again, so features of them are of no use: leave out "
            "--pool.urls, or train live"
        )
    fault = settings.encoded_fault()
    if fault:
        raise ValueError(fault)


def describe_features(
    settings: RunSettings,
    method: Method,
    runtime: Runtime,
    dataset: Dataset,
    split: str | None,
    *,
    views: int,
    encoding: Encoding,
    recipe: str,
) -> dict[str, Any]:
    """Return all that decides the features that a recipe's streams give, as plain values."""
    network = cast(SegmentationNetwork, method.find_network(method.evaluated))
    return {
        "recipe": recipe,
        "method": method_name(settings),
        "encoder": describe_encoder(network, settings, runtime, dataset.channels.count),
        "data": str(Path(dataset.root).resolve()),
        "sums": data_sums(dataset, split),
        "split": split,
        "streams": {n: describe_stream(s, settings) for n, s in method.streams.items()},
        "batch_sizes": {name: spec.batch_size for name, spec in method.streams.items()},
        "seed": settings.seed,
        "shuffle_buffer": settings.loader.shuffle_buffer,
        "loader": loader_name(settings.loader),
        "views": views,
        "encoding": encoding,
        "precision": runtime.precision,
        "device": runtime.device.type,
    }


def describe_stream(spec: StreamSpec, settings: RunSettings) -> dict[str, Any]:
    """Return what decides the views of a stream, but for its seed, as plain values."""
    perturbed = spec.strong is not None and spec.strong.view != "none"
    return {
        "kind": spec.kind,
        "subset": spec.subset,
        "geometry": to_plain(spec.geometry or settings.geometry),
        "normalization": to_plain(settings.normalization),
        "strong": to_plain(spec.strong) if perturbed else None,
        "strong_share": spec.strong_share if perturbed and spec.kind == "labeled" else None,
        "second_view": spec.second_view,
        "weak_photometric": spec.weak_photometric,
        "focus": to_plain(settings.rare.focus) if spec.kind == "labeled" else None,
    }


def describe_encoder(
    network: SegmentationNetwork, settings: RunSettings, runtime: Runtime, channels: int
) -> dict[str, Any]:
    """Return what tells an encoder of so many channels from others: the sum of its weights, and its
    answer to a probe of the crops' size, which also follows from how it is built."""
    size = settings.geometry.crop_size
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(1, channels, *size, generator=generator).to(
        runtime.device, memory_format=torch.channels_last
    )
    levels = encode(network, probe, runtime)
    return {
        "network": settings.network.name,
        "weights": settings.network.weights,
        "sha256": state_sum(network.backbone),
        "levels": [list(level.shape[1:]) for level in levels],
        "probe": [round(level.float().abs().mean().item(), 8) for level in levels],
    }


@torch.no_grad()
def encode(
    network: SegmentationNetwork, image: torch.Tensor, runtime: Runtime
) -> tuple[torch.Tensor, ...]:
    """Return the features of images, as a network of a run gives them to its head."""
    with runtime.autocast():
        return network.encode(image)


def claim_features(out: Path, request: dict[str, Any]) -> None:
    """Make a folder that of the features described, or check that it is.

    Raises ValueError where it holds other features, naming what differs, or other files.
    """
    if (out / MANIFEST).is_file():
        held = typed(load_feature_manifest(out)["request"], dict[str, Any], "request")
        moved = dict.fromkeys(MOVED)
        different = first_difference(_unprobed(held) | moved, _unprobed(request) | moved)
        if different:
            raise ValueError(f"{out} holds other features ({different}); choose another folder")
        return
    leftovers = (LOCK, f"{MANIFEST}.tmp")
    if out.exists() and any(file.name not in leftovers for file in out.iterdir()):
        raise ValueError(f"{out} holds other files; choose an empty or new folder for --out")
    out.mkdir(parents=True, exist_ok=True)
    write_feature_manifest(out, request, {}, complete=False)


def check_features(
    folder: Path,
    request: Mapping[str, Any],
    settings: RunSettings,
    method: Method,
    runtime: Runtime,
    dataset: Dataset,
    split: str | None,
) -> None:
    """Raise ValueError where features are not those of the images of a run, which passed
    `refuse_unfit`; it names what differs."""
    network = cast(SegmentationNetwork, method.find_network(method.evaluated))
    ours = describe_encoder(network, settings, runtime, dataset.channels.count)
    _check_weights(folder, request["encoder"], ours)
    changed = other_data(request["sums"], data_sums(dataset, split))
    if changed or request["split"] != split:
        what = changed or f"split {request['split']}, not {split}"
        raise ValueError(
            f"{folder} holds features of other data ({what}): name the data and the split that "
            "they were made of, or make features of these"
        )
    for name, spec in method.streams.items():
        held, now = request["streams"].get(name), describe_stream(spec, settings)
        if held is None:
            raise ValueError(
                f"{folder} has no features for the {name} images of this method, only "
                f"{', '.join(request['streams'])}: make some by its recipe with warpseg features"
            )
        if held["second_view"] and not spec.second_view:
            held = {**held, "second_view": False}
        different = first_difference(held, now, name)
        if different:
            raise ValueError(
                f"{folder} holds features of other views ({different}): train with the settings "
                "they were made with, or make features of these"
            )
    # What views alone explain, such as another crop, was said in their words.
    _check_levels(folder, request["encoder"], ours)


_OTHER = "train with the network and the weights they were made with, or make features of these"


def _check_weights(folder: Path, held: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    if held["sha256"] != ours["sha256"]:
        raise ValueError(
            f"{folder} holds features of another encoder ({held['network']}, weights "
            f"{held['weights']}; this one is of {ours['network']}, weights {ours['weights']}, and "
            f"not the same): {_OTHER}"
        )


def _check_levels(folder: Path, held: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    near = all(
        abs(a - b) <= PROBE * max(abs(a), abs(b))
        for a, b in zip(held["probe"], ours["probe"], strict=False)
    )
    if [list(level) for level in held["levels"]] != ours["levels"] or not near:
        raise ValueError(
            f"{folder} holds features of an encoder with these weights that is built, or fed, "
            f"otherwise (levels {held['levels']}, now {ours['levels']}): {_OTHER}"
        )


def _unprobed(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request without what rounding may change; the sum of the weights stays."""
    return {
        **request,
        "encoder": {k: v for k, v in request["encoder"].items() if k != "probe"},
    }
