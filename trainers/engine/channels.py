"""What the channels of a data set's images decide of a run's settings."""

import logging
from dataclasses import replace
from typing import TypeVar

from ...pipelines.normalization import NormalizationSettings
from ...shards import Dataset
from ...shards.bands.bands import Bands, kind_words
from .settings import RunSettings

log = logging.getLogger("warpseg")

Settings = TypeVar("Settings", bound=RunSettings)
OPTION = "in_channels="
"""What `--network.options` says of channels."""


def with_channels(settings: Settings, dataset: Dataset) -> Settings:
    """Return settings whose network takes the data set's images, normalised by the means and
    deviations of their channels; those for RGB of 8 bits as they are.

    Raises ValueError where the settings ask for another number of channels.
    """
    channels = dataset.channels
    told = [word for word in settings.network.options if word.startswith(OPTION)]
    if told and told[0] != f"{OPTION}{channels.count}":
        raise ValueError(
            f"--network.options {told[0]}, but the images of {dataset.root} have "
            f"{kind_words(channels.kind)}: leave it out"
        )
    if dataset.plain:
        return settings
    if channels.count != 3 and not told:
        words = (*settings.network.options, f"{OPTION}{channels.count}")
        settings = replace(settings, network=replace(settings.network, options=words))
    return replace(settings, normalization=channel_look(settings.normalization, dataset))


def channel_look(look: NormalizationSettings, dataset: Dataset) -> NormalizationSettings:
    """Return the normalisation of a data set's images: that of their channels' levels, unless
    numbers are given; that of RGB as it is.

    Raises ValueError for numbers of another count than the channels.
    """
    channels = dataset.channels
    if dataset.plain:
        return look
    if look.name == "given" and len(look.mean) == channels.count:
        return look
    if look.name == "given":
        raise ValueError(
            f"--normalization has {len(look.mean)} numbers, and the images of {dataset.root} have "
            f"{kind_words(channels.kind)}: leave it out (the data set's own), or give as many"
        )
    return look_of(channels)


def look_of(channels: Bands) -> NormalizationSettings:
    """Return mean and deviation of channels in [0, 1]; a channel of one level has a deviation of
    one level."""
    if not channels.mean:
        raise ValueError(
            f"the manifest does not say which levels the {channels.count} channels have: convert "
            "the data set again"
        )
    mean = tuple(value / channels.highest for value in channels.mean)
    std = tuple(max(value, 1.0) / channels.highest for value in channels.std)
    return NormalizationSettings(name="given", mean=mean, std=std)
