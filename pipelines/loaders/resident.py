"""The device cache: images decoded once, kept on the device as uint8, cropped there.

Each image is decoded when a batch first asks for it, so the cache is full after one epoch; from
then on a batch is one launch and no file is read. The windows are those of the other loaders; where
they scale, pixels agree within rounding.
"""

# pyright: reportPrivateImportUsage=false

import logging
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...kernels import CropPlan, ResidentImages, random_crop
from ...shards import Sample
from ...shards.images import DAMAGED
from ..settings import LoaderSettings
from ..views.geometry import draw_windows
from .cache import MIB, check_host_room
from .loading import Loader
from .masks import read_map
from .plan import Crops, MapSource, Plan, Request
from .sampling import GEOMETRY

_CONFIDENCE = "confidence"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Decoded:
    """An image (H * W, 3) and its maps (H * W,), all uint8, and its class."""

    pixels: np.ndarray
    maps: dict[str, np.ndarray]
    label: int


class ResidentLoader(Loader):
    """Decodes what is missing of a batch and of those that follow, and cuts the crops.

    Raises ValueError, when made, where the images do not fit on the device.
    """

    def __init__(
        self, plan: Plan, settings: LoaderSettings, stride: int, device: torch.device
    ) -> None:
        super().__init__(plan, settings, stride, device)
        self._device = device
        self._sizes = np.array([sample.size for sample in plan.samples], np.int64)
        # One map of classes, under the name that the stream gave it, and perhaps confidences.
        self._map = next((name for name in plan.maps if name != _CONFIDENCE), None)
        self._check_room()
        self._images = ResidentImages.allocate(
            self._sizes.tolist(),
            device,
            masks=self._map is not None,
            confidence=torch.uint8 if _CONFIDENCE in plan.maps else None,
        )
        self._classes = torch.zeros(len(plan.samples), 1, 1, dtype=torch.uint8, device=device)
        self._ends = self._sizes.prod(1).cumsum()
        self._there = np.zeros(len(plan.samples), bool)
        self._tasks: dict[int, Future[_Decoded]] = {}

    def load(self, position: int) -> Crops:
        """Return the batch at `position`; image and maps are on the loader's device."""
        plan = self.plan
        asked = plan.indices(position)
        index = asked if self._there.all() else self._fill(position, asked)
        draws = plan.sampler.draws(position, plan.batch_size)
        scaled, origin, flip = draw_windows(plan.geometry, self._sizes[index], draws[:, GEOMETRY])
        for row, focus in plan.focused(position).items():
            if index[row] == focus.index:
                window = self._window(position + row, plan.samples[focus.index], draws[row])
                origin[row] = window.origin
        rows = torch.from_numpy(index)
        crops = random_crop(
            self._images,
            CropPlan(
                index=rows,
                scaled=torch.from_numpy(scaled).int(),
                origin=torch.from_numpy(origin).int(),
                flip=torch.from_numpy(flip),
                size=plan.geometry.crop_size,
            ),
            fill=plan.fill,
        )
        maps = {self._map: crops.mask, _CONFIDENCE: crops.confidence}
        if plan.classes:
            maps["class"] = self._classes[self._to_device(rows)]
        request = Request(
            position=position,
            samples=tuple(plan.samples[i] for i in index.tolist()),
            windows=(),
            draws=draws,
        )
        return Crops(
            request=request,
            image=crops.image,
            maps={name: values for name, values in maps.items() if name and values is not None},
            skipped=int((index != asked).sum()),
            resident_window=crops.window,
        )

    def close(self) -> None:
        """Release the images."""
        super().close()
        self._tasks.clear()
        self._images = ResidentImages.allocate([], "cpu")

    def _fill(self, position: int, asked: np.ndarray) -> np.ndarray:
        """Bring the images of a batch to the device; return which they came to be.

        They are the ones asked for, but for the corrupt ones. Decoding of the next batches begins.
        """
        for ahead in range(self.settings.prefetch + 1):
            first = position + ahead * self._stride
            for number in self.plan.indices(first).tolist():
                self._start(number)
        new: dict[int, _Decoded] = {}
        index = [self._usable(position + row, new) for row in range(len(asked))]
        if new:
            self._store(new)
        return np.array(index, np.int64)

    def _start(self, number: int) -> None:
        known = self._there[number] or self._is_corrupt(self.plan.samples[number])
        if not known and number not in self._tasks:
            self._tasks[number] = self._pool.submit(self._decode, number)

    def _usable(self, position: int, new: dict[int, _Decoded]) -> int:
        """Return the first sample from a position on that is not corrupt; add it where new."""
        for number in self.plan.candidates(position):
            sample = self.plan.samples[number]
            if self._there[number] or number in new:
                return number
            self._start(number)
            try:
                if not self._is_corrupt(sample):
                    new[number] = self._tasks.pop(number).result()
                    return number
            except DAMAGED as error:
                self._skip(sample, error)
        raise self._nothing_left()

    def _decode(self, number: int) -> _Decoded:
        """Decode an image and its maps, in a thread."""
        sample = self.plan.samples[number]
        image = sample.read_image()
        maps = {name: _map_of(sample, source).ravel() for name, source in self.plan.maps.items()}
        label = self._masks.class_of(sample) if self.plan.classes else 0
        return _Decoded(image.reshape(-1, 3), maps, label)

    def _store(self, new: dict[int, _Decoded]) -> None:
        """Copy new images and maps to the device, in one transfer for each kind."""
        kinds = {"pixels": self._images.pixels, _CONFIDENCE: self._images.confidence}
        if self._map is not None:
            kinds[self._map] = self._images.mask
        ends, sizes = self._ends[list(new)], self._sizes[list(new)].prod(1)
        places = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        for name, room in kinds.items():
            if room is None:
                continue
            parts = [d.pixels if name == "pixels" else d.maps[name] for d in new.values()]
            moved = self._to_device(torch.from_numpy(np.concatenate(parts)))
            torch._foreach_copy_([room[place] for place in places], moved.split(sizes.tolist()))
        if self.plan.classes:
            labels = torch.tensor([d.label for d in new.values()], dtype=torch.uint8)
            rows = self._to_device(torch.tensor(list(new)))
            self._classes[rows] = self._to_device(labels).view(-1, 1, 1)
        self._there[list(new)] = True
        if self._there.all():
            _log.info("cache: %d images on %s", len(self._there), self._device)

    def _to_device(self, values: Tensor) -> Tensor:
        if self._device.type == "cuda":
            values = values.pin_memory()
        return values.to(self._device, non_blocking=True)

    def _check_room(self) -> None:
        pixels = int(self._sizes.prod(1).sum())
        needed = pixels * (3 + len(self.plan.maps))
        if self._device.type != "cuda":
            check_host_room(needed, len(self._sizes))
            return
        free, _ = torch.cuda.mem_get_info(self._device)
        if needed > free:
            raise ValueError(
                f"--loader.cache device needs {needed / MIB:.0f} MiB on {self._device} for "
                f"{len(self._sizes)} images and their masks, and {free / MIB:.0f} MiB are free: "
                "use --loader.cache host or none"
            )

    def _payload(
        self, sample: Sample, window: object, canvas: object, row: int, position: int
    ) -> None:
        raise AssertionError("the resident loader reads no single batch")


def _map_of(sample: Sample, source: MapSource) -> np.ndarray:
    """Decode a map of an image, or make the one that it has where it has none, uint8 (H, W)."""
    holder = source.sample_of(sample)
    if holder is None:
        return np.full(sample.size, source.without, np.uint8)
    return read_map(holder, source.extension)
