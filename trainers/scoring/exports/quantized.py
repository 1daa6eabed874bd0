"""An ONNX graph in 8-bit integers, and what that costs on images of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .... import IGNORE
from ....plain import counted
from ....shards import Dataset
from ....shards.manifest import FILE as MANIFEST
from ..image_files import find_images, read_image
from ..inference import Size
from ..score import iou_of
from .graphs import Runner, run_onnx

FILE = "model.int8.onnx"
CALIBRATING, MEASURED = 32, 100
"""Most images that ranges are taken from, and that the loss is measured on."""
Pair = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What 8 bits cost: shares in [0, 1], over images that the ranges were not taken from."""

    calibrated_on: int
    """Images that the ranges were taken from."""
    images: int
    agreement: float
    """Share of pixels that both graphs label alike."""
    miou_before: float | None = None
    miou_after: float | None = None

    def told(self) -> str:
        """Return it as a line."""
        images = counted(self.images, "image")
        line = f"int8: {100 * self.agreement:.2f} % of the pixels of {images} are labeled as before"
        if self.miou_before is None or self.miou_after is None:
            return line
        before, after = 100 * self.miou_before, 100 * self.miou_after
        return f"{line}; mIoU {before:.2f} % before, {after:.2f} % after"


def quantize(file: Path, out: Path, images: Path, size: Size | None, num_classes: int) -> Loss:
    """Write the int8 form of an ONNX graph (weights by channel, activations by their range on some
    images, static) and measure it on others.

    images: a converted data set (ranges from train, mIoU on val), or image files in a folder (every
    second for one and the other).
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    calibrating, measured = _split(images, size)
    prepared = out.with_suffix(".prepared")
    try:
        quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(out),
            _Reader(calibrating),  # pyright: ignore[reportArgumentType]
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        prepared.unlink(missing_ok=True)
    _keep_facts(file, out)
    return _measure(file, out, measured, num_classes, len(calibrating))


def check_images(path: Path) -> None:
    """Raise FileNotFoundError or ValueError for what `quantize` cannot take images from."""
    if (path / MANIFEST).is_file():
        dataset = Dataset.open(path)
        for name in ("train", "val"):
            dataset.subset(name)
    elif len(find_images([path])) < 2:
        raise ValueError(f"--int8 takes two images or more: {path} holds one")


class _Reader:
    """Images as onnxruntime asks for them."""

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self._rest = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next image, (1, H, W, 3), or None."""
        image = next(self._rest, None)
        return None if image is None else {"image": image[None]}


def _keep_facts(file: Path, out: Path) -> None:
    import onnx

    before, after = onnx.load(str(file)), onnx.load(str(out))
    del after.metadata_props[:]
    after.metadata_props.extend(before.metadata_props)
    after.producer_name = before.producer_name
    onnx.save_model(after, str(out))


def _split(path: Path, size: Size | None) -> tuple[list[np.ndarray], list[Pair]]:
    """Return images to take ranges from, and images, with masks if there are any, to measure on."""
    if (path / MANIFEST).is_file():
        dataset = Dataset.open(path)
        first, others = (dataset.subset(name).samples() for name in ("train", "val"))
        calibrating = [_sized(s.read_image(), size) for s in first[:CALIBRATING]]
        return calibrating, [
            (_sized(s.read_image(), size), s.read_mask()) for s in others[:MEASURED]
        ]
    files = [source.path for source in find_images([path])]
    calibrating = [_sized(read_image(f), size) for f in files[::2][:CALIBRATING]]
    return calibrating, [(_sized(read_image(f), size), None) for f in files[1::2][:MEASURED]]


def _sized(image: np.ndarray, size: Size | None) -> np.ndarray:
    if size is None or image.shape[:2] == size:
        return np.array(image)  # what is read may be read-only, which torch warns of
    return np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _measure(
    before: Path, after: Path, pairs: Sequence[Pair], num_classes: int, calibrated_on: int
) -> Loss:
    counts = np.zeros((2, num_classes, num_classes), dtype=np.int64)
    alike = pixels = 0
    runners = [run_onnx(file) for file in (before, after)]
    for image, mask in pairs:
        labels = list(_labels(runners, image))
        alike += int((labels[0] == labels[1]).sum())
        pixels += labels[0].size
        if mask is not None:
            for count, label in zip(counts, labels, strict=True):
                count += _confusion(mask, label, num_classes)
    scores: list[Any] = [None, None]
    if counts.any():
        scores = [iou_of(torch.from_numpy(count)).nanmean().item() for count in counts]
    return Loss(
        calibrated_on=calibrated_on,
        images=len(pairs),
        agreement=alike / pixels,
        miou_before=scores[0],
        miou_after=scores[1],
    )


def _labels(runners: Sequence[Runner], image: np.ndarray) -> Iterator[np.ndarray]:
    for run in runners:
        yield run(torch.from_numpy(image[None]))[0].argmax(0).numpy().astype(np.uint8)


def _confusion(mask: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Count pixels by true and predicted class, the label brought to the mask's size."""
    if label.shape != mask.shape:
        size = (mask.shape[1], mask.shape[0])
        label = np.array(Image.fromarray(label).resize(size, Image.Resampling.NEAREST))
    known = (mask != IGNORE) & (mask < num_classes)
    pairs = mask[known].astype(np.int64) * num_classes + label[known]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
