"""A data set's images enlarged to 2048 x 1024 JPEGs, where no such data set is at hand."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...shards import Dataset, Sample, Subset
from ...shards.conversion.convert import convert
from ...shards.conversion.packing import PackSettings
from ...shards.source import Entry, Source

LARGE = (1024, 2048)
LARGE_IMAGES = 60
LARGE_QUALITY = 90
NOISE = 1.5
"""Levels of noise on the enlarged images, which else would be smoother than photographs."""


@dataclass(kw_only=True)
class _Enlarged(Source):
    """Images and masks of a subset, brought to 2048 x 1024."""

    samples: dict[str, Sample]

    def read(self, entry: Entry) -> tuple[bytes, np.ndarray]:
        sample = self.samples[entry.name]
        size = (LARGE[1], LARGE[0])
        image = Image.fromarray(sample.read_image()).resize(size, Image.Resampling.BICUBIC)
        noise = np.random.default_rng(int(sample.key)).normal(0, NOISE, (*LARGE, 3))
        pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=LARGE_QUALITY)
        mask = Image.fromarray(sample.read_mask()).resize(size, Image.Resampling.NEAREST)
        return buffer.getvalue(), np.asarray(mask)

    def files(self, entry: Entry) -> list[Path]:
        return []


def enlarge(subset: Subset, folder: Path, count: int = LARGE_IMAGES) -> Subset:
    """Write `count` images of a subset, evenly spread, as a data set of 2048 x 1024 JPEGs."""
    every = subset.samples()
    chosen = every[:: max(1, len(every) // count)][:count]
    source = _Enlarged(
        kind="enlarged",
        root=folder,
        classes=subset.dataset.classes,
        palette=subset.dataset.palette,
        subsets={"train": [Entry(name=s.name, image=s.name, mask=s.name) for s in chosen]},
        samples={s.name: s for s in chosen},
    )
    convert(source, folder / "data", PackSettings())
    return Dataset.open(folder / "data").subset("train")
