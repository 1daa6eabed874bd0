"""Engines of tiny recipes with batches to step on."""

import torch
from tiny import METHOD_RECIPES, tiny_recipe
from warpseg.pipelines import LabeledBatch
from warpseg.shards import Dataset
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.engine.speed import SpeedSettings
from warpseg.trainers.engine.steps.engine import Engine
from warpseg.trainers.engine.streams import next_batches, open_streams
from warpseg.trainers.methods.registry import build_method

TAUGHT = {
    "simple-baseline": "simple-baseline-student-synthetic-swiftnet18-tiny",
    "dmt": "dmt-phase-synthetic-swiftnet18-tiny",
}
"""Recipes whose unlabeled images come with pseudo-labels; the first has DSBN."""
CLASSES = 7


def build_engine(settings, device="cpu", precision="fp32"):
    """Return the engine of a tiny recipe."""
    runtime = Runtime(device=torch.device(device), precision=precision, speed=settings.speed)
    runtime.seed(settings.seed)
    return Engine(
        build_method(settings, runtime, CLASSES),
        runtime,
        optimizer=settings.optimizer,
        schedule=settings.schedule,
        num_steps=settings.num_steps,
        accumulate=settings.accumulate,
    )


def build(settings, scenes, device="cpu", precision="fp32"):
    """Return the engine of a tiny recipe and its streams."""
    engine, dataset = build_engine(settings, device, precision), Dataset.open(scenes)
    assert dataset.num_classes == CLASSES
    streams = open_streams(engine.method.streams, dataset, "few", settings, engine.runtime)
    return engine, streams


def taught_batches(count):
    """Draw steps of two labeled images and two with pseudo-labels."""
    generator = torch.Generator().manual_seed(0)
    steps = []
    for _ in range(count):
        image = torch.randn(2, 2, 3, 32, 32, generator=generator)
        mask = torch.randint(CLASSES, (2, 2, 32, 32), generator=generator).to(torch.uint8)
        sure = torch.rand(2, 32, 32, generator=generator)
        known, taught = (
            LabeledBatch(image=image[row], mask=mask[row], keys=("a", "b"), confidence=c)
            for row, c in ((0, None), (1, sure))
        )
        steps.append({"labeled": known, "pseudo": taught})
    return steps


def first_batches(name, scenes, count=2, speed=None, precision="fp32", **changes):
    """Return the engine of a recipe by its short name, and its first batches."""
    changes["speed"] = speed or SpeedSettings()
    if name in TAUGHT:
        settings = tiny_recipe(TAUGHT[name], labels="labels", **changes)
        return build_engine(settings, precision=precision), taught_batches(count)
    settings = tiny_recipe(METHOD_RECIPES[name], **changes)
    engine, streams = build(settings, scenes, precision=precision)
    batches = [next_batches(streams) for _ in range(count)]
    close(streams)
    return engine, batches


def close(streams):
    for stream in streams.values():
        stream.close()
