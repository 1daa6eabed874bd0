"""The resident loader: images decoded once, kept on the device as uint8, cropped there.

For data sets that fit, above all small images: 640 crops of 32 x 32 pixels cost 60 ms of decoding
per step, and one launch here. The windows are those of the other loaders; where they scale, pixels
agree within rounding.
"""

import logging

import numpy as np
import torch

from ..kernels import CropPlan, ResidentImages, random_crop
from ..shards import Sample
from .geometry import draw_windows
from .loading import DAMAGED, Crops, Loader, Plan, Request, damaged
from .masks import read_map
from .portable import decode
from .sampling import GEOMETRY
from .settings import LoaderSettings

_CONFIDENCE = "confidence"
_log = logging.getLogger(__name__)


class ResidentLoader(Loader):
    """Decodes all samples when the first batch is asked for, and reads no file after that."""

    def __init__(
        self, plan: Plan, settings: LoaderSettings, stride: int, device: torch.device
    ) -> None:
        super().__init__(plan, settings, stride)
        self._device = device
        self._sizes = np.array([sample.size for sample in plan.samples], np.int64)
        # One map of classes, under the name that the stream gave it, and perhaps confidences.
        self._map = next((name for name in plan.maps if name != _CONFIDENCE), None)
        self._images: ResidentImages | None = None
        self._classes: torch.Tensor | None = None

    def load(self, position: int) -> Crops:
        """Return the batch at `position`; image and maps are on the loader's device."""
        if self._images is None:
            self._images = self._decode_all()
        plan = self.plan
        index = plan.sampler.indices(position, plan.batch_size)
        draws = plan.sampler.draws(position, plan.batch_size)
        scaled, origin, flip = draw_windows(plan.geometry, self._sizes[index], draws[:, GEOMETRY])
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
        if self._classes is not None:
            maps["class"] = self._classes[rows.to(self._device)]
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
            resident_window=crops.window,
        )

    def close(self) -> None:
        """Release the images."""
        self._images = self._classes = None
        super().close()

    def _decode_all(self) -> ResidentImages:
        """Decode images and maps in threads; ValueError where they do not fit on the GPU."""
        ends = self._sizes.prod(1).cumsum()
        total = int(ends[-1])
        self._check_room(total * (3 + len(self.plan.maps)))
        _log.info("decoding %d images (%.0f MiB)", len(ends), total * 3 / 2**20)
        pixels = np.empty((total, 3), np.uint8)
        maps = {name: np.empty(total, np.uint8) for name in self.plan.maps}
        classes = np.empty((len(ends), 1, 1), np.uint8)

        def put(number: int) -> None:
            sample = self.plan.samples[number]
            last = int(ends[number])
            part = slice(last - int(self._sizes[number].prod()), last)
            try:
                pixels[part] = np.asarray(decode(sample)).reshape(-1, 3)
                for name, source in self.plan.maps.items():
                    values = read_map(source.sample_of(sample), source.extension)
                    maps[name][part] = values.ravel()
                if self.plan.classes:
                    classes[number] = self._masks.class_of(sample)
            except DAMAGED as error:
                raise damaged(sample, error) from error

        list(self._pool.map(put, range(len(ends))))
        on_device = {name: torch.from_numpy(v).to(self._device) for name, v in maps.items()}
        if self.plan.classes:
            self._classes = torch.from_numpy(classes).to(self._device)
        return ResidentImages(
            pixels=torch.from_numpy(pixels).to(self._device),
            offset=torch.from_numpy(ends - self._sizes.prod(1)).to(self._device),
            size=torch.from_numpy(self._sizes).int().to(self._device),
            mask=on_device.get(self._map or ""),
            confidence=on_device.get(_CONFIDENCE),
        )

    def _check_room(self, needed: int) -> None:
        if self._device.type != "cuda":
            return
        free, _ = torch.cuda.mem_get_info(self._device)
        if needed > free:
            raise ValueError(
                f"the resident loader needs {needed / 2**20:.0f} MiB on {self._device} for "
                f"{len(self.plan.samples)} images, and {free / 2**20:.0f} MiB are free: use "
                "--loader.loader auto"
            )

    def _payload(self, sample: Sample, window: object, canvas: object, row: int) -> None:
        raise AssertionError("the resident loader reads no single batch")
