"""The loaders of the field, with the recipe of UniMatch, over the same shards as ours.

Each item is a pair: weak view, strong view (both normalised float32, (3, H, W)) and mask. Scale
U(.5, 2) of the whole image, pad, random crop, flip; the strong view of the weak crop by
ColorJitter(.5, .5, .5, .25) p .8, grayscale p .2, Gaussian blur of sigma U(.1, 2) p .5.
"""

import io
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch.utils.data import DataLoader, Dataset

from ... import IGNORE
from ...pipelines.normalization import NORMALIZATIONS
from ...shards import Sample

MEAN, STD = NORMALIZATIONS["imagenet"].mean, NORMALIZATIONS["imagenet"].std
JITTER = (0.5, 0.5, 0.5, 0.25)
SCALE = (0.5, 2.0)
PREFETCH = 2
"""Batches that each worker process makes ahead, torch's default."""

Item = tuple[torch.Tensor, ...]
Recipe = Callable[[bytes, bytes, int], Item]


class PeerDataset(Dataset[Item]):
    """The samples of a subset through a recipe; file access is what our loaders do too."""

    def __init__(self, samples: list[Sample], crop: int, recipe: Recipe) -> None:
        self._samples, self._crop, self._recipe = samples, crop, recipe

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._samples)

    def __getitem__(self, index: int) -> Item:
        sample = self._samples[index]
        mask = sample.read("seg.png") if "seg.png" in sample.parts else b""
        return self._recipe(sample.read(sample.extension), mask, self._crop)


def peer_loader(
    samples: list[Sample],
    crop: int,
    recipe: Recipe,
    *,
    batch_size: int,
    workers: int,
    pinned: bool = False,
) -> tuple[Iterator[Any], Callable[[], list[int]]]:
    """Return an endless iterator over batches of a recipe, and a function of its workers' ids.

    pinned: in memory from which a GPU copies by itself.
    """
    loader = DataLoader(
        PeerDataset(samples, crop, recipe),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers > 0 else None,
        pin_memory=pinned,
        persistent_workers=workers > 0,
        worker_init_fn=_seed_worker,
        # A process with threads, as ours has by now, must not be forked.
        multiprocessing_context="spawn" if workers > 0 else None,
    )
    batches = iter(loader)

    def endless() -> Iterator[Any]:
        current = batches
        while True:
            yield from current
            current = iter(loader)

    def pids() -> list[int]:
        return [worker.pid for worker in getattr(batches, "_workers", [])]

    return endless(), pids


def pil_crop(image_bytes: bytes, mask_bytes: bytes, crop: int) -> Item:
    """Return the weak crop alone, uint8 (crop, crop, 3), and its mask, where views are made on the
    device; images without a mask have one of no class."""
    image, mask = _pil_weak(image_bytes, mask_bytes, crop)
    return torch.from_numpy(np.array(image)), torch.from_numpy(np.array(mask))


def pil_recipe(image_bytes: bytes, mask_bytes: bytes, crop: int) -> Item:
    """Do as UniMatch does: Pillow, resize the whole image, then crop."""
    from torchvision.transforms import v2

    image, mask = _pil_weak(image_bytes, mask_bytes, crop)
    strong = image.copy()
    if random.random() < 0.8:
        strong = v2.ColorJitter(*JITTER)(strong)
    if random.random() < 0.2:
        strong = v2.Grayscale(num_output_channels=3)(strong)
    if random.random() < 0.5:
        strong = strong.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
    weak, strong = (
        v2.functional.normalize(_unit(np.asarray(picture)), list(MEAN), list(STD))
        for picture in (image, strong)
    )
    return weak, strong, torch.from_numpy(np.array(mask))


def _pil_weak(image_bytes: bytes, mask_bytes: bytes, crop: int) -> tuple[Image.Image, Image.Image]:
    """Scale the whole image, pad, crop and flip."""
    image = Image.open(io.BytesIO(image_bytes)).convert("RGB")
    mask = Image.new("L", image.size, IGNORE)
    if mask_bytes:
        mask = Image.open(io.BytesIO(mask_bytes))
    factor = random.uniform(*SCALE)
    size = round(image.width * factor), round(image.height * factor)
    image = image.resize(size, Image.Resampling.BILINEAR)
    mask = mask.resize(size, Image.Resampling.NEAREST)
    pad = 0, 0, max(crop - size[0], 0), max(crop - size[1], 0)
    image, mask = ImageOps.expand(image, pad, 0), ImageOps.expand(mask, pad, IGNORE)
    x, y = random.randint(0, image.width - crop), random.randint(0, image.height - crop)
    image, mask = (picture.crop((x, y, x + crop, y + crop)) for picture in (image, mask))
    if random.random() < 0.5:
        flip = Image.Transpose.FLIP_LEFT_RIGHT
        image, mask = image.transpose(flip), mask.transpose(flip)
    return image, mask


def torchvision_recipe(image_bytes: bytes, mask_bytes: bytes, crop: int) -> Item:
    """Do the same on uint8 tensors with transforms.v2 (torchvision gives up its own decoders)."""
    from torchvision.transforms import v2

    image = v2.functional.pil_to_tensor(Image.open(io.BytesIO(image_bytes)).convert("RGB"))
    mask = v2.functional.pil_to_tensor(Image.open(io.BytesIO(mask_bytes)))
    factor = random.uniform(*SCALE)
    size = [round(image.shape[1] * factor), round(image.shape[2] * factor)]
    image = v2.functional.resize(image, size, antialias=True)
    mask = v2.functional.resize(mask, size, v2.InterpolationMode.NEAREST)
    pad = [0, 0, max(crop - size[1], 0), max(crop - size[0], 0)]
    image, mask = v2.functional.pad(image, pad, 0), v2.functional.pad(mask, pad, IGNORE)
    y = random.randint(0, image.shape[1] - crop)
    x = random.randint(0, image.shape[2] - crop)
    image, mask = (picture[:, y : y + crop, x : x + crop] for picture in (image, mask))
    if random.random() < 0.5:
        image, mask = image.flip(2), mask.flip(2)
    strong = image
    if random.random() < 0.8:
        strong = v2.ColorJitter(*JITTER)(strong)
    if random.random() < 0.2:
        strong = v2.functional.rgb_to_grayscale(strong, num_output_channels=3)
    if random.random() < 0.5:
        sigma = random.uniform(0.1, 2.0)
        strong = v2.functional.gaussian_blur(strong, [13, 13], [sigma, sigma])
    weak, strong = (
        v2.functional.normalize(v2.functional.to_dtype(view, scale=True), list(MEAN), list(STD))
        for view in (image, strong)
    )
    return weak, strong, mask[0].contiguous()


def albumentations_recipe(image_bytes: bytes, mask_bytes: bytes, crop: int) -> Item:
    """Do the same with OpenCV through albumentations."""
    import cv2

    weakly, strongly, finish = _albumentations(crop)
    image = cv2.imdecode(np.frombuffer(image_bytes, np.uint8), cv2.IMREAD_COLOR_RGB)
    mask = cv2.imdecode(np.frombuffer(mask_bytes, np.uint8), cv2.IMREAD_GRAYSCALE)
    crops = weakly(image=image, mask=mask)
    views = (crops["image"], strongly(image=crops["image"])["image"])
    weak, strong = (
        torch.from_numpy(np.ascontiguousarray(finish(image=view)["image"].transpose(2, 0, 1)))
        for view in views
    )
    return weak, strong, torch.from_numpy(crops["mask"])


_built: dict[int, tuple[Any, Any, Any]] = {}


def _albumentations(crop: int) -> tuple[Any, Any, Any]:
    """Build the three transforms once per process; without the check for updates over the net."""
    if crop not in _built:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations as A
        import cv2

        cv2.setNumThreads(0)
        weakly = A.Compose(
            [
                A.RandomScale((SCALE[0] - 1, SCALE[1] - 1), p=1),
                A.PadIfNeeded(crop, crop, fill=0, fill_mask=IGNORE, position="top_left"),
                A.RandomCrop(crop, crop),
                A.HorizontalFlip(p=0.5),
            ]
        )
        brightness, contrast, saturation = ((1 - j, 1 + j) for j in JITTER[:3])
        strongly = A.Compose(
            [
                A.ColorJitter(brightness, contrast, saturation, (-JITTER[3], JITTER[3]), p=0.8),
                A.ToGray(p=0.2),
                A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=0.5),
            ]
        )
        _built[crop] = weakly, strongly, A.Normalize(MEAN, STD)
    return _built[crop]


def _unit(pixels: np.ndarray) -> torch.Tensor:
    """Return (3, H, W) float32 in [0, 1], as ToTensor does."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous().float().div(255)


def _seed_worker(number: int) -> None:
    torch.set_num_threads(1)
    random.seed(number)
