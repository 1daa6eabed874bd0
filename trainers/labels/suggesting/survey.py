"""One pass over what is labeled, and one over the pool, of which no mask is ever opened."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .... import IGNORE, pipelines
from ....pipelines.batches import PlainBatch
from ....pipelines.settings import LoaderSettings
from ....shards import Subset
from ...engine.processes.stopping import Stop, Stopped, never
from ...engine.runtime import Runtime
from .asking import Run
from .choosing import Known, merit
from .looking import Look, features, look, parts_of
from .reservoir import Reservoir
from .scan import Scan, request_of
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
    *,
    file: Path | None = None,
    stop: Stop = never,
) -> tuple[Known, list[Look]]:
    """Return what is labeled, and the images of the pool, or regions, to choose among.

    The networks are on the runtime's device and in evaluation mode. file: where the pass over the
    pool is set down from time to time, and goes on from. Raises ValueError for a pool that lists
    masks: what is hidden stays so; and Stopped soon after `stop` tells so.
    """
    known = survey_labeled(runs, labeled, settings, runtime, loader)
    scan = None
    if file is not None:
        scan = Scan(file, request_of(runs, pool, labeled, settings, runtime))
    return known, survey_pool(runs, pool, known, settings, runtime, loader, scan=scan, stop=stop)


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
            if settings.by != "gain":
                continue
            feature = features(runs[0][0], batch.image, parts, runtime.dtype)
            rows = feature.flatten(2).permute(0, 2, 1).flatten(0, 1)
            found.append(rows.cpu().numpy().clip(-65504, 65504).astype(np.float16))
    return Known(have, np.concatenate(found) if found else np.zeros((0, 1), np.float16))


def survey_pool(
    runs: Sequence[Run],
    pool: Subset,
    known: Known,
    settings: SuggestSettings,
    runtime: Runtime,
    loader: LoaderSettings,
    *,
    scan: Scan | None = None,
    stop: Stop = never,
) -> list[Look]:
    """Look at each image of a pool once and return those, or the regions, to choose among.

    The first network's protocol holds for all. Raises as `survey`.
    """
    if pool.has_masks:
        raise ValueError(f"{pool.name} lists masks; suggestions are made without looking at any")
    kept = Reservoir(settings.candidates, settings.seed)
    done, before = (0, []) if scan is None else scan.load()
    for one in before:
        kept.offer(one, merit(one, known, settings))
    # Groups of one size begin where one ended, so the rest is batched as it would have been.
    rest = pool.only([sample.key for sample in pool.samples()[done:]]) if done else pool
    for batch in _batches(runs, rest, settings, runtime, loader, "unlabeled", done):
        seen = look(
            runs,
            batch,
            evaluation=runs[0][0].evaluation,
            flip=settings.flip,
            scales=settings.scales,
            regions=settings.regions,
            dtype=runtime.dtype,
            featured=settings.by == "gain",
        )
        for one in seen:
            kept.offer(one, merit(one, known, settings))
        done += len(batch.keys)
        if scan is not None and (stop() or scan.due()):
            scan.save(done, kept.looks())
        if stop():
            raise Stopped(f"stopped after {done} images")
    return kept.looks()


def _batches(
    runs: Sequence[Run],
    subset: Subset,
    settings: SuggestSettings,
    runtime: Runtime,
    loader: LoaderSettings,
    what: str,
    done: int = 0,
) -> Iterator[PlainBatch]:
    """Yield the images of a subset and show how many are done, `done` of them before."""
    batches = pipelines.plain(
        subset,
        normalization=runs[0][0].normalization,
        loader=loader,
        batch_size=settings.batch_size,
        device=runtime.device,
    )
    total = done + len(subset)
    with tqdm(total=total, initial=done, unit="image", desc=what, disable=None) as progress:
        for batch in batches:
            yield batch
            progress.update(len(batch.keys))
