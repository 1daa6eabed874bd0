"""What a network says of the images of a data set: asked for, set down exactly, read again."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ... import kernels, pipelines
from ...pipelines.batches import PlainBatch
from ...pipelines.settings import LoaderSettings
from ...shards import Sample, Subset
from ...shards.archive import replacing
from ..engine.protocol import EvaluationSettings
from ..engine.runtime import Runtime
from ..scoring.inference import predict_logits
from ..scoring.trained import TrainedNetwork

_CLASSIFIED_AT_ONCE = 250


class Predicted(NamedTuple):
    """What a network says of one image: uint8 (H, W) and float32 (H, W) in [0, 1]."""

    key: str
    label: np.ndarray
    confidence: np.ndarray


def predict_subset(
    trained: TrainedNetwork,
    subset: Subset,
    evaluation: EvaluationSettings,
    runtime: Runtime,
    loader: LoaderSettings,
    *,
    batch_size: int = 0,
) -> Iterator[Predicted]:
    """Yield label and confidence of each image at its own size; of whole images, 1 x 1.

    batch_size: most images of one size at once; 0 is 1, or 250 of whole images. The network is on
    the runtime's device and in evaluation mode. The next batch is under way while one is handed
    out. Raises ValueError naming the first image of which the network says nothing finite.
    """
    whole = trained.task == "classification"
    batches = pipelines.plain(
        subset,
        normalization=trained.normalization,
        loader=loader,
        batch_size=batch_size or (_CLASSIFIED_AT_ONCE if whole else 1),
        device=runtime.device,
    )
    network, dtype = trained.network, runtime.dtype
    waiting: _OnDevice | None = None
    for batch in batches:
        if whole:
            label, confidence = _classify(network, batch, dtype)
        else:
            prediction = predict_logits(
                network,
                batch.image,
                evaluation,
                normalization=trained.normalization,
                dtype=dtype,
            )
            label, confidence = prediction.label()
        following = _OnDevice(batch.keys, label, confidence)
        if waiting is not None:
            yield from waiting.fetch()
        waiting = following
    if waiting is not None:
        yield from waiting.fetch()


def _classify(network: nn.Module, batch: PlainBatch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return class and confidence of whole images, (N, 1, 1)."""
    mixed = dtype != torch.float32
    with torch.autocast(batch.image.device.type, dtype=dtype, enabled=mixed):
        logits = network(batch.image)
    made = kernels.pseudo_label(logits, (1, 1))
    return made.label, made.confidence


class _OnDevice:
    """Labels on their way to the host while the device works on."""

    def __init__(self, keys: tuple[str, ...], label: Tensor, confidence: Tensor) -> None:
        self.keys = keys
        self.maps = [values.to("cpu", non_blocking=True) for values in (label, confidence)]
        self.arrived = torch.cuda.Event() if label.is_cuda else None
        if self.arrived is not None:
            self.arrived.record()

    def fetch(self) -> Iterator[Predicted]:
        if self.arrived is not None:
            self.arrived.synchronize()
        for made in map(Predicted, self.keys, *(values.numpy() for values in self.maps)):
            if not np.isfinite(made.confidence).all():
                raise ValueError(
                    f"the network returns NaN or infinite logits for image {made.key}: its "
                    "training diverged; label with an earlier checkpoint"
                )
            yield made


def write_scratch(path: Path, predicted: Iterator[Predicted]) -> None:
    """Set labels and exact confidences down, 5 bytes a pixel, whole or not at all."""
    with replacing(path) as file:
        for made in predicted:
            file.write(made.label.tobytes())
            file.write(made.confidence.tobytes())


def read_scratch(path: Path, samples: list[Sample], *, whole: bool) -> Iterator[Predicted]:
    """Read what `write_scratch` set down of these samples; whole: one pixel of each."""
    with open(path, "rb") as file:
        for sample in samples:
            size = (1, 1) if whole else sample.size
            pixels = size[0] * size[1]
            label = np.frombuffer(file.read(pixels), np.uint8).reshape(size)
            confidence = np.frombuffer(file.read(4 * pixels), np.float32).reshape(size)
            yield Predicted(sample.key, label, confidence)
