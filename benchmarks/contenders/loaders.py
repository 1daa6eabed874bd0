"""The loaders that `warpseg bench pipeline` compares: ours and those of the field, opened alike.

A contender is a running loader. Ours deliver pairs, or with DALI also crops alone, as where the
views are made on a GPU; the others deliver pairs by the recipes of peers.py.
"""

import os
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any

from ...pipelines import GeometrySettings, LoaderSettings, StrongSettings
from ...pipelines.loaders.dali import has_dali
from ...pipelines.loaders.jpeg import decoder
from ...pipelines.streams.paired import PairedStream, paired
from ...shards import Sample, Subset
from ...shards.pools.settings import PoolSettings
from .peers import albumentations_recipe, peer_loader, pil_recipe, torchvision_recipe

PEERS = {
    "PIL (UniMatch)": pil_recipe,
    "torchvision.v2": torchvision_recipe,
    "albumentations": albumentations_recipe,
}
BASELINE = "PIL (UniMatch)"
PAIRS, CROPS, UNLABELED = "weak, strong, mask", "uint8 crop, mask", "weak, strong"


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


def contenders(
    subset: Subset, crop: int, batch_size: int, *, threads: int, peers: Sequence[str] = tuple(PEERS)
) -> list[Callable[[], Contender]]:
    """Return functions that open our loaders and the named ones of PEERS."""
    makers: list[Callable[[], Contender]] = []
    ours = [LoaderSettings(loader="portable", threads=threads)]
    if decoder() is not None:
        ours.append(replace(ours[0], jpeg="torchcodec"))
    if has_dali():
        dali = LoaderSettings(loader="dali", threads=threads)
        ours = [dali, replace(dali, mask_cache=0), *ours]
        makers.append(partial(_ours, subset, crop, batch_size, dali, CROPS))
    for loader in ours:
        makers.append(partial(_ours, subset, crop, batch_size, loader, PAIRS))
    for served in (False, True):
        makers.append(partial(_pooled, subset, crop, batch_size, ours[0], served))
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
    name += ", TorchCodec" if loader.jpeg == "torchcodec" else ""
    batches = stream if delivers == PAIRS else _crops_alone(stream)
    # The first pass over the data fills the cache of masks.
    warm = stream.epoch_size // batch_size + 1
    return Contender(Row(name, delivers), batches, list, stream.close, warm)


def _pooled(
    subset: Subset, crop: int, batch_size: int, loader: LoaderSettings, served: bool
) -> Contender:
    """Open our stream on the same tars as a pool, from the disk or over HTTP on the loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=subset.dataset.root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{server.server_port}" if served else subset.dataset.root
    stream = paired(
        subset,
        geometry=GeometrySettings(crop_size=(crop, crop)),
        strong=StrongSettings(view="colour"),
        loader=loader,
        batch_size=batch_size,
        pool=PoolSettings(urls=tuple(f"{place}/{shard.tar.name}" for shard in subset.shards)),
    )

    def close() -> None:
        stream.close()
        server.shutdown()
        server.server_close()

    where = "over HTTP" if served else "from disk"
    return Contender(Row(f"warpseg {loader.loader}, pool {where}", UNLABELED), stream, list, close)


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class _MaskAsLabel(Sample):
    """A sample whose mask is read as a pseudo-label."""

    def read(self, extension: str) -> bytes:
        return super().read("seg.png")


def _as_label(sample: Sample) -> Sample:
    parts = {"label.png": sample.parts["seg.png"], "seg.png": sample.parts["seg.png"]}
    return _MaskAsLabel(sample.key, sample.shard, parts, sample.name, sample.size)


def _crops_alone(stream: PairedStream) -> Iterator[Any]:
    """Yield what the loader delivers, as where the views are made on a GPU."""
    position = 0
    while True:
        yield stream.loader.load(position)
        position += stream.batch_size


def _importable(*names: str) -> bool:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        for name in names:
            import_module(name)
    except ImportError:
        return False
    return True
