"""Which loader reads a stream: DALI, the portable one, or one that keeps images on the device."""

import logging
from functools import cache

import torch

from ...shards.bands.bands import PLAIN, kind_words
from ..settings import LoaderSettings
from .dali import DaliLoader, has_dali
from .loading import Loader
from .plan import Plan
from .portable import PortableLoader
from .resident import ResidentLoader

_log = logging.getLogger(__name__)


def build_loader(plan: Plan, settings: LoaderSettings, stride: int, device: torch.device) -> Loader:
    """Build the loader that the settings name; RuntimeError where it is DALI and not installed."""
    if settings.cache == "device":
        return ResidentLoader(plan, settings, stride, device)
    if loader_name(settings, plan.bands) == "dali":
        return DaliLoader(plan, settings, stride, device)
    return PortableLoader(plan, settings, stride, device)


def loader_name(settings: LoaderSettings, bands: tuple[int, int] = PLAIN) -> str:
    """Return "dali" or "portable": what decodes where the device keeps no images.

    Those that are not RGB of 8 bits are the portable loader's, unless DALI is asked for by name.
    Raises ValueError where it is.
    """
    if bands != PLAIN and settings.loader == "dali":
        raise ValueError(
            f"--loader.loader dali decodes RGB of 8 bits, and the images have {kind_words(bands)}: "
            "leave it at auto"
        )
    if bands != PLAIN:
        return "portable"
    return choose_loader() if settings.loader == "auto" else settings.loader


@cache
def choose_loader() -> str:
    """Return "dali" where it is installed, else "portable"; says so once in the log."""
    name = "dali" if has_dali() else "portable"
    _log.info("loader: %s%s", name, "" if name == "dali" else " (NVIDIA DALI is not installed)")
    return name
