"""Pseudo-labeling beside the network's forward passes alone, in one run.

    warpseg bench labeling RUN [--data DATA] [--split S] [--images 48] [--threshold class] ...

Both work on the same images, in turn, `repeats` times. Forward: the network alone on images that
are decoded and normalised already, at the size the protocol asks for. Labeling: all that `warpseg
pseudo-label` does, from tar to tar. Seconds are those of the clock; CPU seconds those that all
threads of the process worked, which other processes on the machine do not change. Storage stands
beside the float32 array of label and confidence (H x W x 2) that DMT's released code writes, and
what the maps cost to write and to read in each encoding.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .... import pipelines
from ....pipelines.settings import LoaderSettings
from ....shards import Dataset, Subset
from ....shards.pseudo import open_pseudo_labels, read_pseudo_label
from ....trainers.engine.runtime import Runtime, open_runtime
from ....trainers.engine.streams import open_subset
from ....trainers.labels.labeling import label_subset
from ....trainers.labels.request import state_sum
from ....trainers.labels.settings import LabelingSettings
from ....trainers.runs.kept.opening import open_trained
from ....trainers.scoring.inference import evaluating, predict_logits
from ....trainers.scoring.trained import TrainedNetwork
from ...tables import result_of, write
from ...words.given import Given
from ...words.labels import LabelingBenchSettings
from .encodings import encodings_text, measure_encodings

NPY_BYTES = 8
"""Bytes a pixel of two float32 values."""
ENCODED = 16
"""Images whose labels are encoded and decoded again, by themselves."""


def labeling(given: Given) -> int:
    """Run `warpseg bench labeling`."""
    settings: LabelingBenchSettings = given.settings
    trained = open_trained(settings.path)
    dataset = Dataset.open(settings.data or trained.origin["data"])
    subset = open_subset(dataset, "unlabeled", settings.split or trained.origin.get("split"))
    subset = subset.only([sample.key for sample in subset.samples()[: settings.images]])
    runtime = open_runtime(settings.device)
    content = measure(trained, subset, settings.settings, runtime, settings.repeats)
    print(describe(content))
    write(result_of("labeling", given.arguments, runtime.device, content), settings.out)
    return 0


def measure(
    trained: TrainedNetwork,
    subset: Subset,
    settings: LabelingSettings,
    runtime: Runtime,
    repeats: int,
) -> dict[str, Any]:
    """Return the figures of both, once all images have got labels."""
    runtime.place(trained.network)
    forward = _forward(trained, subset, settings, runtime)
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(repeats + 1))

        def label() -> dict[str, Any]:
            return label_subset(
                trained, subset, Path(folder) / str(next(numbers)), settings, runtime
            )

        made = label()
        if made["images"] + made["left_out"] != len(subset):
            raise RuntimeError(f"{made['images']} of {len(subset)} images have labels: no figures")
        stored = sum(shard["bytes"] for shard in made["shards"])
        labels = open_pseudo_labels(Path(folder) / "0")
        found = [read_pseudo_label(sample) for sample in list(labels.values())[:ENCODED]]
        seconds = [(_seconds(forward), _seconds(label)) for _ in range(repeats)]
    pixels = sum(height * width for height, width in (s.size for s in subset.samples()))
    (wall, cpu), (label_wall, label_cpu) = (
        [statistics.median(times) for times in zip(*column, strict=True)]
        for column in zip(*seconds, strict=True)
    )
    count = len(subset)
    return {
        "network": trained.name,
        "network_sha256": state_sum(trained.network),
        "evaluation": settings.evaluation.describe(),
        "threshold": settings.threshold,
        "images": count,
        "forward_images_per_second": count / wall,
        "labeling_images_per_second": count / label_wall,
        "share_of_forward": wall / label_wall,
        "forward_images_per_cpu_second": count / cpu,
        "labeling_images_per_cpu_second": count / label_cpu,
        "share_of_forward_cpu": cpu / label_cpu,
        "bytes_per_image": stored / count,
        "npy_bytes_per_image": NPY_BYTES * pixels / count,
        "encodings": measure_encodings(
            {"label": [f.label for f in found], "confidence": [f.confidence for f in found]}
        ),
    }


def describe(content: dict[str, Any]) -> str:
    """Return the figures as lines for a terminal."""
    return (
        f"{content['network']}, {content['evaluation']}, threshold {content['threshold']}, "
        f"{content['images']} images\n"
        f"forward   {content['forward_images_per_second']:8.2f} images/s "
        f"{content['forward_images_per_cpu_second']:8.2f} images/CPU s\n"
        f"labeling  {content['labeling_images_per_second']:8.2f} images/s "
        f"{content['labeling_images_per_cpu_second']:8.2f} images/CPU s\n"
        f"share     {100 * content['share_of_forward']:7.1f} %         "
        f"{100 * content['share_of_forward_cpu']:7.1f} %\n"
        f"storage   {content['bytes_per_image'] / 1e3:.1f} kB an image, "
        f"{content['npy_bytes_per_image'] / content['bytes_per_image']:.1f} times less than .npy\n"
        f"{encodings_text(content['encodings'])}"
    )


def _forward(
    trained: TrainedNetwork, subset: Subset, settings: LabelingSettings, runtime: Runtime
) -> Callable[[], None]:
    """Return the forward passes over the whole subset, which lies decoded on the device."""
    batches = pipelines.plain(
        subset,
        normalization=trained.normalization,
        loader=LoaderSettings(),
        batch_size=max(settings.batch_size, 1),
        device=runtime.device,
    )
    loaded = [batch.image for batch in batches]

    def forward() -> None:
        with evaluating(trained.network):
            for image in loaded:
                predict_logits(
                    trained.network,
                    image,
                    settings.evaluation,
                    normalization=trained.normalization,
                    dtype=runtime.dtype,
                )
        if runtime.device.type == "cuda":
            torch.cuda.synchronize(runtime.device)

    return forward


def _seconds(function: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of the clock and of the process's threads that a call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu
