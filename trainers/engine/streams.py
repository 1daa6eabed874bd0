"""The streams a method asks for, opened on a data set and its split."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ... import pipelines
from ...pipelines.settings import GeometrySettings, StrongSettings
from ...shards import Dataset, Sample, Subset
from ...shards.pseudo import load_label_manifest, open_pseudo_labels
from .runtime import Runtime
from .settings import RunSettings

Batches = dict[str, Any]
"""One batch of each stream that a method asked for, by the stream's name.

A stage may add entries that later stages of the same step read.
"""


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """What one stream of a method carries.

    `subset` "all" is every image, labeled and unlabeled, without masks. `strong_share` of a
    labeled batch is perturbed by `strong`; a paired batch has a `second_view` if asked;
    `weak_photometric` distorts the colours of weak views. `pseudo` is a folder of pseudo-labels
    (`warpseg pseudo-label`): the stream is cut down to the images that have some, and its batches
    hold them, in place of masks, with their confidences. `geometry` takes the place of the run's.
    """

    kind: Literal["labeled", "paired"]
    subset: Literal["labeled", "unlabeled", "all"]
    batch_size: int
    strong: StrongSettings | None = None
    strong_share: float = 0.5
    second_view: bool = False
    weak_photometric: bool = False
    pseudo: Path | None = None
    geometry: GeometrySettings | None = None


def open_subset(dataset: Dataset, name: str, split: str | None) -> Subset:
    """Return a side of a split; without a split, all masks are labeled ones.

    Images of which a part is labeled are unlabeled ones as well (see `with_partial`).
    """
    if name == "unlabeled" and dataset.partial:
        return with_partial(dataset, split)
    if split is not None:
        return dataset.subset(name, split)
    if name == "all":
        parts = [dataset.subset("train-images")]
        parts += [dataset.subset("unlabeled")] if "unlabeled" in dataset.subsets else []
        return replace(parts[0], name=name, shards=sum((part.shards for part in parts), ()))
    return dataset.subset({"labeled": "train"}.get(name, name))


def with_partial(dataset: Dataset, split: str | None) -> Subset:
    """Return the unlabeled images and, without their masks, the labeled ones whose masks leave
    pixels that nobody has labeled yet."""
    partly = partly_labeled(dataset, split)
    there = split is not None or "unlabeled" in dataset.subsets
    if not partly and there:
        return dataset.subset("unlabeled", split)
    others = dataset.subset("unlabeled", split).samples() if there else []
    keys = frozenset([*partly, *(sample.key for sample in others)])
    return replace(open_subset(dataset, "all", None), name="unlabeled", split=split, keys=keys)


def partly_labeled(dataset: Dataset, split: str | None) -> dict[str, Sample]:
    """Return the labeled images of a data set or a split of which a part is not labeled yet, with
    their masks, by key."""
    if not dataset.partial:
        return {}
    samples = open_subset(dataset, "labeled", split).samples()
    return {sample.key: sample for sample in samples if sample.key in dataset.partial}


def open_streams(
    specs: Mapping[str, StreamSpec],
    dataset: Dataset,
    split: str | None,
    settings: RunSettings,
    runtime: Runtime,
) -> dict[str, Any]:
    """Open the endless streams of a run, by name, for this rank.

    Raises ValueError for a pool that no stream reads.
    """
    _check_pool(settings, specs)
    streams: dict[str, Any] = {}
    for name, spec in specs.items():
        shared: dict[str, Any] = {
            "geometry": spec.geometry or settings.geometry,
            "normalization": settings.normalization,
            "loader": settings.loader,
            "batch_size": spec.batch_size,
            "device": runtime.device,
            "dtype": runtime.dtype,
            "seed": settings.seed,
            "stream": name,
            "weak_photometric": spec.weak_photometric,
            "rank": runtime.rank,
            "world_size": runtime.world_size,
        }
        if _reads_pool(settings, spec):
            shared["pool"] = settings.pool
        alone = "pool" in shared and settings.pool.share == 1
        subset = open_subset(dataset, "all" if alone else spec.subset, None if alone else split)
        if spec.pseudo is not None:
            subset, shared["pseudo"] = with_pseudo_labels(subset, spec.pseudo)
        if spec.kind == "labeled":
            streams[name] = pipelines.labeled(
                subset,
                strong=spec.strong,
                strong_share=spec.strong_share,
                focus=settings.rare.focus,
                **shared,
            )
        else:
            if spec.subset == "unlabeled" and spec.pseudo is None:
                shared["partly"] = partly_labeled(dataset, split)
            streams[name] = pipelines.paired(
                subset, strong=spec.strong, second=spec.second_view, **shared
            )
    return streams


def _reads_pool(settings: RunSettings, spec: StreamSpec) -> bool:
    return bool(settings.pool.urls) and spec.kind == "paired" and spec.pseudo is None


def _check_pool(settings: RunSettings, specs: Mapping[str, StreamSpec]) -> None:
    if settings.pool.urls and not any(_reads_pool(settings, spec) for spec in specs.values()):
        raise ValueError(
            "--pool.urls: this method reads no unlabeled images but, if any, those that it has "
            "pseudo-labels of: leave the pool out, or choose another recipe"
        )


def open_labeled(dataset: Dataset, folder: Path) -> Subset:
    """Return the subset of a data set, or the side of a split, that a folder labels."""
    request = load_label_manifest(folder)["request"]
    return open_subset(dataset, request["subset"], request["split"])


def with_masks(dataset: Dataset, subset: Subset, *, partly: bool = False) -> Subset | None:
    """Return the samples of a subset with their true masks, or None where not all have one.

    partly: return those that have one, None where there are none.
    """
    if subset.has_masks:
        return subset
    keys = [sample.key for sample in subset.samples()]
    for name in dataset.subsets:
        known = dataset.subset(name).only(keys)
        found = [sample.key for sample in known.samples()]
        if known.has_masks and (found == keys or (partly and found)):
            return known
    return None


def with_pseudo_labels(subset: Subset, folder: Path) -> tuple[Subset, dict[str, Sample]]:
    """Return the images of a subset that have pseudo-labels, and those labels by key.

    Raises what `open_pseudo_labels` raises, and ValueError where no image has one, or where they
    were made for other images.
    """
    labels = open_pseudo_labels(folder)
    records = subset.dataset.records
    for tar, total in load_label_manifest(folder)["request"]["data_shards"].items():
        if tar not in records or records[tar].sha256 != total:
            raise ValueError(
                f"{folder} labels the images of another data set ({tar} of {subset.dataset.root} "
                "is not the one they lay in): make the labels again"
            )
    labeled = subset.only(labels)
    if not len(labeled):
        raise ValueError(
            f"{folder} has no label for any of the {len(subset)} images of {subset.name!r} in "
            f"{subset.dataset.root}: make labels of that side with warpseg pseudo-label"
        )
    return labeled, labels


def next_batches(streams: Mapping[str, Any]) -> Batches:
    """Take one batch of every stream."""
    return {name: next(stream) for name, stream in streams.items()}
