"""How much a training step launches, counted without a GPU.

Run as a script, with Triton's interpreter off, it prints for each recipe, as JSON, what PyTorch
dispatches on the CPU (`cpu`), and what a CUDA device would launch (`device`): the same with each
operation of this package run as on a GPU, Triton's kernels counted as one launch each and not run
(a driver without a GPU stands in), so that the losses' plain references do not count.
"""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.engine.steps.draws import recording
from warpseg.trainers.runs.measuring.launches import HostDraws, LaunchCounter
from warpseg.trainers.runs.measuring.workload import bench_settings, open_workload

RECIPES = {
    "consistency-camvid-swiftnet18": (),
    "mkd-camvid-swiftnet18": (),
    "gta-camvid-swiftnet18": (),
    "gta-camvid-swiftnet18 --warmup-steps 0": ("--warmup-steps", "0"),
}
SMALL = ("--geometry.crop-size", "64", "64", "--batch-size", "2", "--unlabeled-batch-size", "2")
CLASSES = 11


@contextmanager
def on_a_device(counter):
    """Run this package's operations as on a GPU, but for the kernels: those are counted."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "kernels"))
    from launched import recorded
    from torch._library.custom_ops import OPDEFS
    from triton.runtime.jit import JITFunction

    for name, definition in OPDEFS.items():
        if name.startswith("warpseg::"):
            (counter.kernels[name],) = definition._backend_fns.values()
    run = JITFunction.run

    def counted(self, *args, **kwargs):
        counter.counts[self.fn.__name__] += 1
        return run(self, *args, **kwargs)

    JITFunction.run = counted
    try:
        with recorded(), recording(HostDraws(counter)):
            yield
    finally:
        JITFunction.run = run
        counter.kernels.clear()


def engine_of(recipe, words=(), precision="bf16"):
    """Return the engine of a recipe on tiny crops, and a function that makes its batches."""
    settings = bench_settings(recipe, [*SMALL, "--precision", precision, *words])
    runtime = Runtime(device=torch.device("cpu"), precision=precision, speed=settings.speed)
    workload = open_workload(recipe, settings, runtime, CLASSES)
    return workload.engine(), workload.micro_batches


def counted_step(recipe, words=()):
    """Return the counters of a recipe's second and third step in bf16: the CPU's, a device's."""
    engine, batches = engine_of(recipe, words)
    engine.run_step(batches())
    cpu, device = LaunchCounter(), LaunchCounter()
    with cpu:
        engine.run_step(batches())
    with on_a_device(device), device:
        engine.run_step(batches())
    return cpu, device


def main(shown=0):
    found = {}
    for name, words in RECIPES.items():
        cpu, device = counted_step(name.split()[0], words)
        found[name] = {"cpu": cpu.total, "device": device.total}
        for op, number in device.counts.most_common(shown):
            print(f"    {number:4d} {op}", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
