"""Masks, pseudo-labels and confidences: read, kept, and cut to the window of a crop.

A 12 kB mask of 2048 x 1024 pixels costs as much to decode as its JPEG image (5 ms). So a decoded
mask stays in memory as runs of equal pixels (some 50 kB; 0.1 ms to expand), and only the pixels
that the crop shows are gathered.
"""

import threading
from dataclasses import dataclass

import numpy as np

from ...shards import Sample
from ...shards.maps import decode_map
from ..views.geometry import Window

_BYTES_PER_RUN = 5


@dataclass(frozen=True)
class Runs:
    """A mask (H, W) uint8 as runs: run i covers the flat pixels [starts[i], starts[i + 1])."""

    values: np.ndarray
    starts: np.ndarray
    width: int

    @classmethod
    def encode(cls, mask: np.ndarray) -> "Runs":
        """Find the runs of a mask (H, W) uint8."""
        flat = mask.ravel()
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        starts = np.concatenate([[0], changes, [flat.size]]).astype(np.int32)
        return cls(flat[starts[:-1]], starts, mask.shape[1])

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.values.size * _BYTES_PER_RUN

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Expand the rows [top, bottom), uint8."""
        first, last = top * self.width, bottom * self.width
        a = np.searchsorted(self.starts, first, side="right") - 1
        b = np.searchsorted(self.starts, last, side="left")
        lengths = np.diff(self.starts[a : b + 1].clip(first, last))
        return np.repeat(self.values[a:b], lengths).reshape(bottom - top, self.width)


class MaskReader:
    """Reads the map members of samples (`seg.png`, `label.png`, `confidence.png`, `cls`)."""

    def __init__(self, cache_mib: int) -> None:
        self._room = cache_mib * 2**20
        self._runs: dict[tuple[str, str, str], Runs] = {}
        self._lock = threading.Lock()

    def read_into(self, crop: np.ndarray, sample: Sample, extension: str, window: Window) -> None:
        """Write the window of a map into `crop` (h, w) uint8; pixels outside the image stay.

        Nearest neighbour. Raises ValueError or OSError where the map cannot be decoded or has
        another size than the image.
        """
        rows, columns = window.nearest()
        top, left, bottom, right = window.shown
        first = rows[0]
        values = self._rows(sample, extension, first, rows[-1] + 1)
        crop[top:bottom, left:right] = values.take(rows - first, axis=0).take(columns, axis=1)

    def class_of(self, sample: Sample) -> int:
        """Return the class id of a classification sample."""
        return sample.read_class()

    def _rows(self, sample: Sample, extension: str, top: int, bottom: int) -> np.ndarray:
        key = (str(sample.shard), sample.key, extension)
        runs = self._runs.get(key)
        if runs is not None:
            return runs.rows(top, bottom)
        values = read_map(sample, extension)
        if self._room > 0:
            runs = Runs.encode(values)
            # What hardly compresses (a confidence) would only fill the memory.
            if runs.nbytes < values.nbytes:
                with self._lock:
                    if key not in self._runs:
                        self._runs[key] = runs
                        self._room -= runs.nbytes
        return values[top:bottom]


def read_map(sample: Sample, extension: str) -> np.ndarray:
    """Decode a map member, grey PNG or zstd, to uint8 (H, W).

    Raises ValueError where its size differs from the image's.
    """
    file = f"{sample.shard}:{sample.key}.{extension}"
    values = decode_map(sample.read(extension), extension, file)
    if values.shape != sample.size:
        raise ValueError(f"it is {values.shape} pixels, the image {sample.size}")
    return values
