"""What is checked of a run before its folder is taken, and what only its first step can tell."""

import logging

from ...models import SegmentationNetwork
from ...shards import Dataset
from ...shards.pools.addresses import spelt_out
from ...shards.sense import refuse_senseless
from ..engine.norms.batch_norm import check_batch_norms
from ..engine.settings import RunSettings
from ..engine.stages import Method

SQUASHED = 0.02
"""Share by which a picture's shape must change to be worth a word."""
log = logging.getLogger("warpseg")


def check_names(settings: RunSettings, dataset: Dataset, split: str | None) -> None:
    """Raise as `Dataset.split_record` and `spelt_out` do for a split and files of a pool that there
    are not, before a network is built."""
    if split is not None:
        dataset.split_record(split)
    spelt_out(settings.pool.urls)


def check_network(network: SegmentationNetwork, settings: RunSettings, dataset: Dataset) -> None:
    """Raise ValueError for a network that classifies images where pixels have classes or the other
    way round, for norms that are kept and were never learnt, and for a class of padding that there
    is not."""
    if network.task != dataset.task:
        raise ValueError(
            f"{settings.network.name} is for {network.task}, and {dataset.root} holds data for "
            f"{dataset.task}: choose another recipe or --network.name"
        )
    if settings.network.freeze == "norms" and settings.network.weights == "none":
        raise ValueError(
            "--network.freeze norms keeps statistics of pretrained weights, and there are none: "
            "name some by --network.weights"
        )
    for group in ("geometry", "evaluation"):
        named = getattr(settings, group).padding_class
        if named is not None and named >= dataset.num_classes:
            raise ValueError(
                f"--{group}.padding-class is {named}, but the classes of {dataset.root} are 0 to "
                f"{dataset.num_classes - 1}"
            )


def check_sense(
    method: Method, settings: RunSettings, dataset: Dataset, split: str | None, world_size: int
) -> None:
    """Raise ValueError for data that can have no loss or no score, and for a batch norm that would
    average over a single value."""
    refuse_senseless(dataset, split)
    _say_squashed(settings, dataset)
    check_batch_norms(method, settings.geometry.crop_size, world_size)


def _say_squashed(settings: RunSettings, dataset: Dataset) -> None:
    """Say where images are brought to one size of another shape than theirs."""
    size, samples = settings.geometry.resize, dataset.subset("train").samples()
    if size is None or not samples:
        return
    height, width = samples[0].size
    if abs(size[0] * width / (size[1] * height) - 1) > SQUASHED:
        log.info(
            f"images of {height} x {width} pixels are squashed to {size[0]} x {size[1]}; to keep "
            "their shape: --geometry.resize None --evaluation.mode whole --evaluation.size None"
        )


def explained(error: ValueError, settings: RunSettings) -> ValueError | None:
    """Return torch's error of a batch norm over a single value in terms of settings; None for any
    other one."""
    if "more than 1 value per channel" not in str(error):
        return None
    crop = " ".join(map(str, settings.geometry.crop_size))
    return ValueError(
        f"a batch norm has a single value to average over, with --batch-size "
        f"{settings.batch_size} and --geometry.crop-size {crop}: use a batch of 2 or more, or a "
        "larger crop"
    )
