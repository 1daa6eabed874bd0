"""What the weights of a network decide of a run's settings, once they are read."""

import logging
from dataclasses import replace
from typing import TypeVar

from ...models import SegmentationNetwork
from ...pipelines.normalization import NORMALIZATIONS, NormalizationSettings
from .settings import RunSettings

log = logging.getLogger("warpseg")

Settings = TypeVar("Settings", bound=RunSettings)


def settle(settings: Settings, network: SegmentationNetwork, *, own: bool = False) -> Settings:
    """Return a run's settings with the input normalisation and the options of its network's
    weights, where the settings leave them open; warn where they say otherwise.

    own: the normalisation is that of the data set's own channels, which no weights know.
    """
    theirs = normalization_of_network(network)
    told = settings.normalization
    if told.name == "network":
        settings = replace(settings, normalization=theirs)
    elif network.pretrained and not own and not told.same(theirs):
        log.warning(
            f"images are normalised by {_words(told)}, but the weights of {network.name} were "
            f"trained with {_words(theirs)}; --normalization.name network takes theirs"
        )
    if network.found:
        words = tuple(f"{name}={value}" for name, value in network.found.items())
        chosen = replace(settings.network, options=(*settings.network.options, *words))
        settings = replace(settings, network=chosen)
    return settings


def normalization_of_network(network: SegmentationNetwork) -> NormalizationSettings:
    """Return the input normalisation that a network's weights were trained with."""
    look = network.normalization
    if isinstance(look, str):
        return NORMALIZATIONS[look]
    named = [known for known in NORMALIZATIONS.values() if (known.mean, known.std) == look]
    mean, std = look
    return named[0] if named else NormalizationSettings(name="given", mean=mean, std=std)


def _words(look: NormalizationSettings) -> str:
    return f"mean {look.mean} and std {look.std}" if look.name == "given" else look.name
