"""How much memory the labels of a large image take: a process of its own, whose peak is told.

    python peak.py FOLDER SIDE CHANNELS [CACHED]

Makes a tiled TIFF of SIDE x SIDE pixels of 16 bits in FOLDER, labels a small one, then this one by
windows, and prints the peaks of resident memory after either, in MiB, and the seconds.
"""

import json
import resource
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import tifffile
import torch
from warpseg.pipelines.normalization import NormalizationSettings
from warpseg.shards.bands import tiff
from warpseg.shards.bands.bands import Bands
from warpseg.trainers.engine.journal import start_logging
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.scoring.predict import predict_images
from warpseg.trainers.scoring.settings import PredictSettings
from warpseg.trainers.scoring.trained import TrainedNetwork

TILE, KINDS = 256, 7
"""Pixels a side of a tile, and how many different ones there are."""


def write_large(path, side, channels):
    """Write an image of a few tiles in turn, deflated once each."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(200, 2400, (KINDS, TILE // 16, TILE // 16, channels))
    tiles = coarse.repeat(16, 1).repeat(16, 2).astype(np.uint16)
    packed = [zlib.compress(tile.tobytes(), 1) for tile in tiles]
    count = (-(-side // TILE)) ** 2
    tifffile.imwrite(
        path,
        (packed[number % KINDS] for number in range(count)),
        shape=(side, side, channels),
        dtype=np.uint16,
        tile=(TILE, TILE),
        compression="zlib",
        photometric="minisblack",
        planarconfig="contig",
        bigtiff=True,
        metadata=None,
    )


def small_network(channels):
    """Return a network of three convolutions, of five classes, at stride 4."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(channels, 8, 3, 2, 1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 5, 3, 2, 1),
    )
    network.output_stride = 4
    return TrainedNetwork(
        network=network.eval(),
        name="small",
        classes=("a", "b", "c", "d", "e"),
        palette=tuple((50 * i, 20, 250 - 50 * i) for i in range(5)),
        normalization=NormalizationSettings(mean=(0.02,) * channels, std=(0.01,) * channels),
        evaluation=EvaluationSettings(),
        channels=Bands(count=channels, bits=16),
    )


def peak():
    """Return the greatest resident memory so far in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(folder, side, channels, cached=None):
    """Label both images; see above."""
    torch.set_num_threads(1)
    start_logging(0)
    if cached is not None:
        tiff.CACHED = cached
    network, device = small_network(channels), torch.device("cpu")
    settings = PredictSettings(windows="always", threads=1)
    peaks = []
    for name, pixels in (("small", 2600), ("large", side)):
        write_large(folder / f"{name}.tif", pixels, channels)
        started = time.perf_counter()
        predict_images(network, [folder / f"{name}.tif"], folder / name, settings, device=device)
        peaks.append(peak())
    seconds = time.perf_counter() - started
    print(json.dumps({"small": peaks[0], "large": peaks[1], "seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
