"""The host cache: decoded images in memory, filled as they are first asked for.

Between no cache and the device's: a data set that no GPU holds often fits into the memory of its
machine, and its crops then cost a resize, not a decode.
"""

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...plain import environment_number
from ...shards import Sample

MIB = 2**20
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


class HostCache:
    """Images of some samples, decoded once.

    Raises ValueError where they, on all ranks of this machine and beside what other caches of this
    process have yet to fill, do not fit into the memory that is free.
    """

    _open: ClassVar["weakref.WeakSet[HostCache]"] = weakref.WeakSet()

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._images: dict[tuple[Path, str], np.ndarray] = {}
        self._missing = decoded_bytes(samples)
        check_host_room(self._missing + sum(cache._missing for cache in self._open), len(samples))
        self._open.add(self)

    def read(self, sample: Sample) -> np.ndarray:
        """Return the image of a sample, (H, W, C); not to be written to.

        Raises what `Sample.read_image` raises. Two threads may both decode an image; one is kept.
        """
        place = (sample.shard, sample.key)
        image = self._images.get(place)
        if image is None:
            image = self._images.setdefault(place, sample.read_image())
            self._missing = max(self._missing - image.nbytes, 0)
        return image

    def close(self) -> None:
        """Release the images."""
        self._images.clear()
        self._missing = 0
        self._open.discard(self)


def decoded_bytes(samples: Sequence[Sample]) -> int:
    """Return the bytes of the decoded images of samples."""
    return sum(
        sample.bands[0] * (sample.bands[1] // 8) * sample.size[0] * sample.size[1]
        for sample in samples
    )


def check_host_room(needed: int, images: int) -> None:
    """Raise ValueError where a machine's ranks cannot keep so many bytes each."""
    ranks = environment_number("LOCAL_WORLD_SIZE", 1)
    free = free_memory()
    if needed * ranks > free:
        raise ValueError(
            f"--loader.cache needs {needed / MIB:.0f} MiB on each of {ranks} ranks for {images} "
            f"images and what else is cached, and {free / MIB:.0f} MiB are free: use "
            "--loader.cache none"
        )


def free_memory() -> int:
    """Return the bytes that processes can still take, within the machine and its cgroup."""
    words = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
    free = int(words["MemAvailable"].split()[0]) * 1024
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(free, 0)
