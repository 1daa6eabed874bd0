"""Which recipes have a plain PyTorch implementation to be compared with."""

from typing import Any

from ...trainers.engine.settings import RunSettings
from ...trainers.methods.settings.consistency import ConsistencySettings
from ...trainers.methods.settings.gta import GtaSettings
from ...trainers.methods.settings.mkd import MkdSettings
from ...trainers.methods.settings.supervised import SupervisedSettings
from .plain_gta import PlainGta, is_plain_gta
from .plain_mkd import PlainMkd, is_plain_mkd
from .plain_step import PlainConsistency, PlainSupervised
from .plain_unimatch import is_plain_weak_to_strong, plain_weak_to_strong


def plain_step(
    settings: RunSettings, *options: Any, staged: bool = True, **more: Any
) -> PlainSupervised | None:
    """Return the plain implementation of a recipe's step, or None where there is none here."""
    if not has_plain(settings):
        return None
    if isinstance(settings, ConsistencySettings):
        return PlainConsistency(settings, *options, staged=staged, **more)
    if isinstance(settings, GtaSettings):
        return PlainGta(settings, *options, **more)
    if isinstance(settings, MkdSettings):
        return PlainMkd(settings, *options, **more)
    if is_plain_weak_to_strong(settings):
        return plain_weak_to_strong(settings, *options, **more)
    return PlainSupervised(settings, *options, **more)


def has_plain(settings: RunSettings) -> bool:
    """Tell whether a recipe has a plain implementation: supervised training, GTA-Seg, MKD,
    FixMatch, UniMatch and PrevMatch as published, and of consistency the paper's own form: 1w-ct,
    pooled KL of warped probabilities."""
    if not isinstance(settings, ConsistencySettings):
        supervised = isinstance(settings, SupervisedSettings)
        published = (is_plain_gta, is_plain_mkd, is_plain_weak_to_strong)
        return supervised or any(tells(settings) for tells in published)
    return (
        settings.variant == "1w-ct"
        and not settings.cutmix
        and settings.divergence == "kl"
        and settings.blend == "probabilities"
        and settings.kl_mean == "pooled"
        and settings.teacher_batch_norm == "running"
    )
