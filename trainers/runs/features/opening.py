"""Open the streams of a run on features in place of images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....pipelines.features.records import BatchMaker
from ....pipelines.features.stream import FeatureStream
from ....shards import Dataset
from ....shards.features.folder import REMEDY, FeatureRecords, load_feature_manifest
from ....shards.features.layout import CRC
from ....shards.labeling.regions import real
from ....shards.manifest import FILE as MANIFEST
from ....shards.outside.text import (
    checked,
    fields,
    hexadecimal,
    list_of,
    mapping,
    number,
    plain_object,
    text,
)
from ...engine.runtime import Runtime
from ...engine.settings import RunSettings
from ...engine.stages import Method
from ..kept.sums import features_sum
from .request import check_features

_SIZE = list_of(number(1), (2,))
_REQUEST = fields(
    {
        "seed": number(),
        "shuffle_buffer": number(),
        "sums": mapping(text),
        "streams": mapping(plain_object),
        "encoder": fields(
            {"sha256": hexadecimal, "levels": list_of(list_of(number(1))), "probe": list_of(real)},
            open=True,
        ),
    },
    open=True,
)


def open_feature_streams(
    folder: Path,
    method: Method,
    dataset: Dataset,
    split: str | None,
    settings: RunSettings,
    runtime: Runtime,
) -> dict[str, Any]:
    """Open the endless streams of a method, by name, for this rank, on a folder of features.

    Raises FileNotFoundError and ValueError for what is no finished folder of features, or whose
    features cannot stand for the images of this run.
    """
    manifest = load_feature_manifest(folder)
    if not manifest["complete"]:
        raise ValueError(f"{folder} is made in part: run the same warpseg features again")
    request = checked(manifest["request"], _REQUEST, folder / MANIFEST, REMEDY)
    try:
        check_features(folder, request, settings, method, runtime, dataset, split)
        return {
            name: _open(name, folder, manifest, method, settings, runtime)
            for name in method.streams
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / MANIFEST} is damaged ({error}): {REMEDY}") from error


def _open(
    name: str,
    folder: Path,
    manifest: Mapping[str, Any],
    method: Method,
    settings: RunSettings,
    runtime: Runtime,
) -> FeatureStream:
    spec, held, request = method.streams[name], manifest["streams"][name], manifest["request"]
    records = FeatureRecords(folder, held)
    height, width = checked(held.get("size"), _SIZE, folder / MANIFEST, REMEDY)
    maker = BatchMaker(
        [member.name for member in records.layout.members if member.name != CRC],
        size=(height, width),
        device=runtime.device,
        dtype=runtime.dtype,
        second=spec.second_view,
    )
    return FeatureStream(
        records,
        maker,
        batch_size=spec.batch_size,
        stream=name,
        seed=settings.seed,
        shuffle_buffer=settings.loader.shuffle_buffer,
        drawn_by={
            "seed": request["seed"],
            "stream": name,
            "shuffle_buffer": request["shuffle_buffer"],
        },
        total=features_sum(folder),
        threads=settings.loader.num_threads,
        prefetch=settings.loader.prefetch,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
