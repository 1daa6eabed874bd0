"""One pass over what is labeled, and one over the pool, of which no mask is ever opened."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from .... import IGNORE, pipelines
from ....pipelines.batches import PlainBatch
from ....pipelines.settings import LoaderSettings
from ....shards import Subset
from ...engine.runtime import Runtime
from .choosing import Known, merit
from .looking import Look, Run, features, look, parts_of
from .reservoir import Reservoir
from .settings import SuggestSettings

MOST_LABELED = 4096
"""Labeled images that are looked at; of more, so many at even distances."""


def survey(
    runs: Sequence[Run],
    pool: Subset,
    labeled: Subset | None,
    settings: SuggestSettings,
    runtime: Runtime,
    loader: LoaderSettings,
) -> tuple[Known, list[Look]]:
    """Return what is labeled, and the images of the pool, or regions, to choose among.

    The networks are on the runtime's device and in evaluation mode. Raises ValueError for a pool
    that lists masks: what is hidden stays so.
    """
    known = survey_labeled(runs, labeled, settings, runtime, loader)
    return known, survey_pool(runs, pool, known, settings, runtime, loader)


def survey_labeled(
    runs: Sequence[Run],
    subset: Subset | None,
    settings: SuggestSettings,
    runtime: Runtime,
    loader: LoaderSettings,
) -> Known:
    """Count the pixels of labeled images by class, and take their features, or those of their
    regions.

    Where these would be more than MOST_LABELED, images at even distances stand for all. A subset of
    None is empty.
    """
    have, found = np.zeros(len(runs[0][0].classes)), []
    if subset is not None and len(subset):
        samples = subset.samples()
        tall, wide = parts_of(samples[0].size, settings.regions)
        every = math.ceil(len(samples) * tall * wide / MOST_LABELED)
        some = subset.only([sample.key for sample in samples[::every]])
        for batch in _batches(runs, some, settings, runtime, loader, "labeled"):
            assert batch.mask is not None
            for mask in batch.mask.cpu().numpy():
                pixels = np.bincount(mask.ravel(), minlength=IGNORE + 1)[: len(have)]
                have += len(samples) / len(some) * pixels / mask.size
            parts = parts_of(batch.size, settings.regions)
            feature = features(runs[0][0], batch.image, parts, runtime.dtype)
            rows = feature.flatten(2).permute(0, 2, 1).flatten(0, 1)
            found.append(rows.cpu().numpy().clip(-65504, 65504).astype(np.float16))
    return Known(have, np.concatenate(found) if found else np.zeros((0, 1), np.float16))


def survey_pool(
    runs: Sequence[Run],
    subset: Subset,
    known: Known,
    settings: SuggestSettings,
    runtime: Runtime,
    loader: LoaderSettings,
) -> list[Look]:
    """Look at each image of a pool once and return those, or the regions, to choose among.

    The first network's protocol holds for all. Raises ValueError for a subset that lists masks:
    what is hidden stays so.
    """
    if subset.has_masks:
        raise ValueError(f"{subset.name} lists masks; suggestions are made without looking at any")
    kept = Reservoir(settings.candidates, settings.seed)
    for batch in _batches(runs, subset, settings, runtime, loader, "unlabeled"):
        seen = look(
            runs,
            batch,
            evaluation=runs[0][0].evaluation,
            flip=settings.flip,
            scales=settings.scales,
            regions=settings.regions,
            dtype=runtime.dtype,
        )
        for one in seen:
            kept.offer(one, merit(one, known, settings))
    return kept.looks()


def _batches(
    runs: Sequence[Run],
    subset: Subset,
    settings: SuggestSettings,
    runtime: Runtime,
    loader: LoaderSettings,
    what: str,
) -> Iterator[PlainBatch]:
    """Yield the images of a subset and show how many are done."""
    batches = pipelines.plain(
        subset,
        normalization=runs[0][0].normalization,
        loader=loader,
        batch_size=settings.batch_size,
        device=runtime.device,
    )
    with tqdm(total=len(subset), unit="image", desc=what, disable=None) as progress:
        for batch in batches:
            yield batch
            progress.update(len(batch.keys))
