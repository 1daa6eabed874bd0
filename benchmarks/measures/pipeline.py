"""Our loaders against those of the field, side by side in one process.

    warpseg bench pipeline DATA [--out FILE.json] [--seconds 6] [--rounds 3] [--threads 2]

DATA is a converted data set, CamVid for the published figures. Every loader makes the same pairs
(weak view, colour-jittered strong view, both normalised float32, and mask) from the same tars:
first at 256 x 256 from the images as they are, then at 512 x 512 from the same images brought to
2048 x 1024 (JPEG quality 90), which are written to a temporary folder.

Loaders take turns in windows of some seconds; the medians over the rounds count, and the processor
time of all of a loader's processes stands beside them, which other work on the machine does not
change. The gate comes first: both of our loaders must deliver the same masks and, within a few
levels, the same images.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ...pipelines import GeometrySettings, LoaderSettings, labeled
from ...pipelines.loaders.dali import has_dali
from ...shards import Dataset, Subset
from ..contenders.loaders import BASELINE, CROPS, PAIRS, Contender, Row, contenders
from ..tables import Result, Table, result_of, write
from ..timing import circumstances, cpu_seconds
from ..words.given import Given
from ..words.steps import PipelineSettings
from .enlarged import enlarge


def pipeline(given: Given) -> int:
    """Run `warpseg bench pipeline`."""
    settings: PipelineSettings = given.settings
    subset = Dataset.open(settings.data).subset("train")
    makers = partial(contenders, threads=settings.threads, peers=(BASELINE, *settings.peers))
    results: dict[str, list[Row]] = {}
    if "small" in settings.cases:
        rows = measure(subset, 256, 16, settings.seconds, settings.rounds, makers)
        results["256x256"] = rows
        print(table("256 x 256 from the data set's images", rows))
    if "large" in settings.cases:
        with tempfile.TemporaryDirectory(prefix="warpseg-bench-") as folder:
            enlarged = enlarge(subset, Path(folder))
            rows = measure(enlarged, 512, 8, 2 * settings.seconds, settings.rounds, makers)
        results["2048x1024 to 512x512"] = rows
        print(table("512 x 512 from 2048 x 1024 JPEG", rows))
    plain = {name: [asdict(row) for row in rows] for name, rows in results.items()}
    content = {"machine": machine(settings.threads), "cases": plain}
    write(result_of("pipeline", given.arguments, torch.device("cpu"), content), settings.out)
    return 0


def measure(
    subset: Subset,
    crop: int,
    batch_size: int,
    seconds: float,
    rounds: int,
    makers: Callable[[Subset, int, int], Sequence[Callable[[], Contender]]],
) -> list[Row]:
    """Measure loaders in turns; RuntimeError where ours do not agree."""
    check_agreement(subset, crop)
    running: list[Contender] = []
    try:
        for make in makers(subset, crop, batch_size):
            running.append(make())
            _take(running[-1].batches, running[-1].warm)
        for _ in range(rounds):
            for contender in running:
                _window(contender, batch_size, seconds)
    finally:
        for contender in running:
            contender.close()
    return [contender.row for contender in running]


def check_agreement(subset: Subset, crop: int) -> None:
    """Check that DALI and the portable loader deliver the same; RuntimeError where they do not."""
    if not has_dali():
        return
    geometry = GeometrySettings(crop_size=(crop, crop))
    batches = []
    for settings in (LoaderSettings(loader="dali"), LoaderSettings(loader="portable")):
        stream = labeled(
            subset, geometry=geometry, batch_size=4, normalization="none", loader=settings
        )
        batches.append(next(stream))
        stream.close()
    first, second = batches
    difference = (first.image - second.image).abs().mean().item() * 255
    if first.keys != second.keys or not torch.equal(first.mask, second.mask) or difference > 2:
        raise RuntimeError(
            f"the loaders do not agree (images differ by {difference:.2f} levels): no figures"
        )


def _window(contender: Contender, batch_size: int, seconds: float) -> None:
    """Measure for some seconds, after the batches that lay ready are gone."""
    _take(contender.batches, 6)
    pids = contender.pids()
    used, start, count = cpu_seconds(pids), time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(contender.batches)
        count += batch_size
    elapsed, used = time.perf_counter() - start, cpu_seconds(pids) - used
    contender.row.pairs_per_second.append(count / elapsed)
    contender.row.cpu_ms_per_pair.append(1000 * used / count)


def _take(batches: Iterator[Any], count: int) -> None:
    for _ in islice(batches, count):
        pass


def table(title: str, rows: list[Row]) -> str:
    """Return the results of one case as text, with what bounds our loader."""
    return f"{title}\n{_table(rows).text()}\n{_bound(rows)}\n"


def tables(result: Result) -> list[Table]:
    """Return the results of a file as tables, one for each case."""
    cases = result["cases"].items()
    return [_table([Row(**loader) for loader in loaders], case) for case, loaders in cases]


def _table(rows: list[Row], remark: str = "") -> Table:
    base = next(row for row in rows if row.loader == BASELINE)
    cells = []
    for row in rows:
        pairs = zip(row.pairs_per_second, base.pairs_per_second, strict=True)
        cells.append(
            (
                *(row.loader, row.delivers, f"{row.rate:.1f}"),
                f"{statistics.median(own / other for own, other in pairs):.2f}",
                *(f"{row.cpu_ms:.2f}", f"{base.cpu_ms / row.cpu_ms:.2f}"),
            )
        )
    head = ("loader", "delivers", "pairs/s", "x PIL", "CPU ms/pair", "x PIL")
    return Table(head, cells, remark)


def bars(result: Result) -> dict[str, dict[str, float]]:
    """Return a bar for each loader and case, for a plot."""
    return {
        f"{case}: {row.loader}{' (crops)' * (row.delivers == CROPS)}": {"pairs/s": row.rate}
        for case, loaders in result["cases"].items()
        for row in (Row(**loader) for loader in loaders)
    }


def _bound(rows: list[Row]) -> str:
    """Say where our loader's time goes."""
    ours = {row.delivers: row for row in rows if row.loader == "warpseg dali"}
    if not ours:
        return "DALI is not installed"
    whole, crops = ours[PAIRS], ours[CROPS]
    return (
        f"bound by processor time: of {whole.cpu_ms:.2f} CPU ms a pair, {crops.cpu_ms:.2f} for "
        "decoding, geometry and mask, the rest for the two views; it had "
        f"{whole.rate * whole.cpu_ms / 1000:.1f} of {os.cpu_count()} cores"
    )


def machine(threads: int) -> dict[str, Any]:
    """Describe where and with what was measured, as plain values."""
    packages = ("torchvision", "pillow", "torchcodec", "nvidia-dali-cuda130", "albumentations")
    installed = {p.metadata["Name"].lower(): p.version for p in metadata.distributions()}
    return {
        **circumstances(torch.device("cpu")),
        "threads": threads,
        "packages": {name: installed.get(name) for name in packages},
    }
