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
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import import_module, metadata
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from ..pipelines import GeometrySettings, LoaderSettings, StrongSettings, labeled
from ..pipelines.dali import has_dali
from ..pipelines.paired import PairedStream, paired
from ..shards import Dataset, Sample, Subset
from .enlarged import enlarge
from .peers import albumentations_recipe, peer_loader, pil_recipe, torchvision_recipe
from .tables import Result, Table, result_of, write
from .timing import circumstances

PEERS = {
    "PIL (UniMatch)": pil_recipe,
    "torchvision.v2": torchvision_recipe,
    "albumentations": albumentations_recipe,
}
BASELINE = "PIL (UniMatch)"
PAIRS, CROPS = "weak, strong, mask", "uint8 crop, mask"
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Row:
    """A loader's measurements: pairs/s and CPU ms per pair of each round, and what it delivers."""

    loader: str
    delivers: str
    pairs_per_second: list[float] = field(default_factory=list)
    cpu_ms_per_pair: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median pairs/s."""
        return statistics.median(self.pairs_per_second)

    @property
    def cpu_ms(self) -> float:
        """Median CPU ms per pair."""
        return statistics.median(self.cpu_ms_per_pair)


@dataclass(frozen=True)
class Contender:
    """A running loader: an endless iterator, the ids of its worker processes, how to stop it, and
    how many batches it takes to get going.
    """

    row: Row
    batches: Iterator[Any]
    pids: Callable[[], list[int]]
    close: Callable[[], None]
    warm: int = 4


def pipeline(arguments: list[str]) -> int:
    """Run `warpseg bench pipeline`."""

    def run(
        data: Annotated[Path, tyro.conf.Positional],
        /,
        *,
        out: Path | None = None,
        seconds: float = 6.0,
        rounds: int = 3,
        threads: int = 2,
        cases: tuple[Literal["small", "large"], ...] = ("small", "large"),
        peers: tuple[Literal["torchvision.v2", "albumentations"], ...] = (
            "torchvision.v2",
            "albumentations",
        ),
    ) -> None:
        """Measure the loaders.

        Args:
            data: a converted data set with masks
            out: write the results to this file as well (JSON)
            seconds: length of one measurement
            rounds: measurements of each loader, in turns
            threads: threads of ours, worker processes of the peers
            cases: small: 256 x 256 from the images as they are; large: 512 x 512 from 2048 x 1024
            peers: loaders to compare with besides Pillow's
        """
        subset = Dataset.open(data).subset("train")
        makers = partial(contenders, threads=threads, peers=(BASELINE, *peers))
        results: dict[str, list[Row]] = {}
        if "small" in cases:
            rows = measure(subset, 256, 16, seconds, rounds, makers)
            results["256x256"] = rows
            print(table("256 x 256 from the data set's images", rows))
        if "large" in cases:
            with tempfile.TemporaryDirectory(prefix="warpseg-bench-") as folder:
                enlarged = enlarge(subset, Path(folder))
                rows = measure(enlarged, 512, 8, 2 * seconds, rounds, makers)
            results["2048x1024 to 512x512"] = rows
            print(table("512 x 512 from 2048 x 1024 JPEG", rows))
        plain = {name: [asdict(row) for row in rows] for name, rows in results.items()}
        content = {"machine": machine(threads), "cases": plain}
        write(result_of("pipeline", arguments, torch.device("cpu"), content), out)

    tyro.cli(run, args=arguments, prog="warpseg bench pipeline")
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


def contenders(
    subset: Subset, crop: int, batch_size: int, *, threads: int, peers: Sequence[str] = tuple(PEERS)
) -> list[Callable[[], Contender]]:
    """Return functions that open our loaders and the named ones of PEERS."""
    makers: list[Callable[[], Contender]] = []
    ours = [LoaderSettings(loader="portable", threads=threads)]
    if has_dali():
        dali = LoaderSettings(loader="dali", threads=threads)
        ours = [dali, replace(dali, mask_cache=0), *ours]
        makers.append(partial(_ours, subset, crop, batch_size, dali, CROPS))
    for loader in ours:
        makers.append(partial(_ours, subset, crop, batch_size, loader, PAIRS))
    for name in peers:
        if name == "albumentations" and not _importable("albumentations", "cv2"):
            print(f"left out: {name} (pip install albumentations opencv-python-headless)")
        else:
            makers.append(partial(_peer, subset, name, crop, batch_size, threads))
    return makers


def _peer(subset: Subset, name: str, crop: int, batch_size: int, workers: int) -> Contender:
    batches, pids = peer_loader(
        subset.samples(), crop, PEERS[name], batch_size=batch_size, workers=workers
    )
    return Contender(Row(name, PAIRS), batches, pids, lambda: None)


def _ours(
    subset: Subset, crop: int, batch_size: int, loader: LoaderSettings, delivers: str
) -> Contender:
    """Open our stream; its pseudo-labels are the masks, as a paired stream never reads those."""
    stream = paired(
        subset,
        geometry=GeometrySettings(crop_size=(crop, crop)),
        strong=StrongSettings(view="colour"),
        loader=loader,
        batch_size=batch_size,
        pseudo={s.key: _as_label(s) for s in subset.samples()},
    )
    name = f"warpseg {loader.loader}" + ("" if loader.mask_cache else ", no cache")
    batches = stream if delivers == PAIRS else _crops_alone(stream)
    # The first pass over the data fills the cache of masks.
    warm = stream.epoch_size // batch_size + 1
    return Contender(Row(name, delivers), batches, list, stream.close, warm)


def _as_label(sample: Sample) -> Sample:
    parts = {"label.png": sample.parts["seg.png"]}
    return Sample(sample.key, sample.shard, parts, sample.name, sample.size)


def _crops_alone(stream: PairedStream) -> Iterator[Any]:
    """Yield what the loader delivers, as where the views are made on a GPU."""
    position = 0
    while True:
        yield stream.loader.load(position)
        position += stream.batch_size


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


def cpu_seconds(pids: list[int]) -> float:
    """Return the processor time of this process and of worker processes."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / TICK


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
    packages = ("torchvision", "pillow", "nvidia-dali-cuda130", "albumentations")
    installed = {p.metadata["Name"].lower(): p.version for p in metadata.distributions()}
    return {
        **circumstances(torch.device("cpu")),
        "threads": threads,
        "packages": {name: installed.get(name) for name in packages},
    }


def _importable(*names: str) -> bool:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        for name in names:
            import_module(name)
    except ImportError:
        return False
    return True
