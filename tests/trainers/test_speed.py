"""Fast steps: none waits for the device, compiled ones compute the same and resume exactly."""

import contextlib
import copy
import gc
import importlib
import pkgutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import warpseg.kernels
from torch import nn
from warpseg.kernels import CutMixBoxes
from warpseg.pipelines import LabeledBatch
from warpseg.shards import Dataset
from warpseg.trainers import consistency, gta, mkd
from warpseg.trainers.checkpoint import load_checkpoint
from warpseg.trainers.data import next_batches, open_streams
from warpseg.trainers.engine import Engine
from warpseg.trainers.networks import NetworkSettings
from warpseg.trainers.optimization import OptimizerSettings
from warpseg.trainers.recipes import build_method
from warpseg.trainers.runtime import Runtime
from warpseg.trainers.speed import SpeedSettings, manual_garbage_collection
from warpseg.trainers.train import Run, train

sys.path.insert(0, str(Path(__file__).parent))
from no_sync import HostSync, no_host_sync
from tiny import METHOD_RECIPES, tiny_recipe

COMPILED = SpeedSettings(compile="default", backend="aot_eager")


TAUGHT = {
    "simple-baseline": "simple-baseline-student-synthetic-swiftnet18-tiny",
    "dmt": "dmt-phase-synthetic-swiftnet18-tiny",
}
"""Recipes whose unlabeled images come with pseudo-labels; the first has DSBN."""
CLASSES = 7


def build_engine(settings, device="cpu"):
    """Return the engine of a tiny recipe."""
    runtime = Runtime(device=torch.device(device), precision="fp32", speed=settings.speed)
    runtime.seed(settings.seed)
    return Engine(
        build_method(settings, runtime, CLASSES),
        runtime,
        optimizer=settings.optimizer,
        schedule=settings.schedule,
        num_steps=settings.num_steps,
        accumulate=settings.accumulate,
    )


def build(settings, scenes, device="cpu"):
    """Return the engine of a tiny recipe and its streams."""
    engine, dataset = build_engine(settings, device), Dataset.open(scenes)
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


def first_batches(name, scenes, count=2, speed=None):
    """Return the engine of a recipe by its short name, and its first batches."""
    speed = speed or SpeedSettings()
    if name in TAUGHT:
        return build_engine(tiny_recipe(TAUGHT[name], labels="labels", speed=speed)), (
            taught_batches(count)
        )
    engine, streams = build(tiny_recipe(METHOD_RECIPES[name], speed=speed), scenes)
    batches = [next_batches(streams) for _ in range(count)]
    close(streams)
    return engine, batches


def close(streams):
    for stream in streams.values():
        stream.close()


@pytest.fixture
def guarded(monkeypatch):
    """Return the guard's context, with all that does not run on a GPU, or is drawn on the host,
    taken out of it."""

    @contextlib.contextmanager
    def context():
        with no_host_sync() as guard:
            for module in map(kernel_module, pkgutil.iter_modules(warpseg.kernels.__path__)):
                for name in [n for n in vars(module) if n.endswith("_reference")]:
                    monkeypatch.setattr(module, name, guard.ignoring(getattr(module, name)))
            for module in (consistency, gta, mkd):
                monkeypatch.setattr(module, "cutmix_boxes", guard.drawing(module.cutmix_boxes))
            yield guard

    return context


def kernel_module(info):
    return importlib.import_module(f"warpseg.kernels.{info.name}")


@pytest.mark.parametrize("name", [*METHOD_RECIPES, *TAUGHT])
def test_no_step_waits_for_the_device(name, scenes, guarded):
    engine, batches = first_batches(name, scenes)
    with guarded() as guard:
        for batch in batches:
            engine.run_step([batch])
    assert guard.operations > 100


def test_the_guard_notices_what_waits():
    values = torch.arange(3.0)
    for wait in (
        lambda: values.sum().item(),
        lambda: bool(values[0] > 0),
        lambda: values.tolist(),
        lambda: values[values > 1],
        lambda: values.nonzero(),
        lambda: torch.tensor([1.0], device=values.device),
    ):
        with no_host_sync(), pytest.raises(HostSync):
            wait()
    with no_host_sync() as guard:
        boxes = guard.drawing(
            lambda: CutMixBoxes.of(torch.zeros(2, 1, 4), values.long()[:2], (2, 2))
        )()
        with pytest.raises(HostSync):
            boxes.to("cpu")
        boxes.to("cpu", non_blocking=True).boxes[torch.tensor([1, 0])] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", METHOD_RECIPES)
def test_no_step_waits_for_the_gpu(name, scenes):
    engine, streams = build(tiny_recipe(METHOD_RECIPES[name]), scenes, "cuda")
    for _ in range(3):
        engine.run_step([next_batches(streams)])
    batches = [next_batches(streams) for _ in range(3)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            engine.run_step([batch])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    close(streams)


SLOW = pytest.mark.slow
COMPILED_CASES = [
    pytest.param(name, "aot_eager", marks=[] if name in ("vat", "simple-baseline") else SLOW)
    for name in (*METHOD_RECIPES, *TAUGHT)
] + [pytest.param("consistency-mt", "inductor", marks=SLOW)]


@pytest.mark.parametrize(("name", "backend"), COMPILED_CASES)
def test_compiled_networks_learn_the_same(name, backend, scenes):
    """Their passes differ in batch-norm policy, DSBN branch, gradients and size; VAT
    differentiates twice."""
    torch._dynamo.reset()
    learned = []
    for speed in (SpeedSettings(), SpeedSettings(compile="default", backend=backend)):
        engine, batches = first_batches(name, scenes, speed=speed)
        for batch in batches:
            engine.run_step([batch])
        learned.append(engine.state_dict()["networks"])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    torch.testing.assert_close(learned[1], learned[0], rtol=1e-4, atol=1e-5)


def flat(state, where=""):
    """Yield (name, value) of every leaf of nested dicts and lists."""
    items = state.items() if isinstance(state, dict) else enumerate(state)
    for key, value in items:
        if isinstance(value, dict | list | tuple):
            yield from flat(value, f"{where}.{key}")
        else:
            yield f"{where}.{key}", value


def test_a_run_with_every_setting_on_resumes_with_the_same_bits(scenes, tmp_path):
    settings = tiny_recipe(METHOD_RECIPES["consistency-mt"], num_steps=4, accumulate=2)
    loader = replace(settings.loader, cache="host", corrupt="skip", affinity=True, threads=1)
    optimizer = replace(settings.optimizer, implementation="foreach")
    speed = replace(COMPILED, bucket_mib=1)
    settings = replace(settings, loader=loader, optimizer=optimizer, speed=speed)
    where = {"data": scenes, "split": "few", "device": "cpu"}
    train(settings, out=tmp_path / "whole", **where)

    class Stop(Exception):
        pass

    run_step = Run._step

    def stops(self):
        if self.engine.step == 3:
            raise Stop
        run_step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_step", stops)
        with pytest.raises(Stop):
            train(settings, out=tmp_path / "halves", **where)
    train(settings, out=tmp_path / "halves", resume=True, **where)
    whole, halves = (load_checkpoint(tmp_path / name) for name in ("whole", "halves"))
    for (name, ours), (_, theirs) in zip(
        flat(halves["engine"]), flat(whole["engine"]), strict=True
    ):
        same = torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
        assert same, name


def test_accumulated_batches_of_a_network_equal_the_joined_batch(scenes):
    """Without batch statistics; every pixel counts, so means of halves are the mean of both."""
    settings = tiny_recipe(METHOD_RECIPES["supervised"], optimizer=OptimizerSettings(name="sgd"))
    engine, streams = build(settings, scenes)
    twice, _ = build(replace(settings, accumulate=2), scenes)
    close(streams)
    image, mask = (
        torch.randn(4, 3, 32, 32),
        torch.randint(0, CLASSES, (4, 32, 32), dtype=torch.uint8),
    )

    def batch(rows):
        held = type("Batch", (), {"image": image[rows], "mask": mask[rows]})
        return {"labeled": held}

    for one in (engine, twice):
        one.method.student.eval()
    engine.run_step([batch(slice(0, 4))])
    twice.run_step([batch(slice(0, 2)), batch(slice(2, 4))])
    ours, theirs = (one.method.student.state_dict() for one in (twice, engine))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_copy_of_a_compiled_network_is_compiled_for_itself():
    runtime = Runtime(device=torch.device("cpu"), speed=COMPILED)
    student = runtime.train_network(NetworkSettings(name="tiny"), CLASSES)
    teacher = runtime.frozen_copy(student)
    assert teacher._compiled_call_impl is not None
    assert teacher._compiled_call_impl is not student._compiled_call_impl
    assert copy.deepcopy(student)._compiled_call_impl is None
    assert list(teacher.state_dict()) == list(student.state_dict())


@pytest.mark.parametrize("compiled", [True, False])
def test_batch_norms_are_synchronised_where_there_are_ranks(compiled, monkeypatch, caplog):
    speed = COMPILED if compiled else SpeedSettings()
    runtime = Runtime(device=torch.device("cpu"), world_size=2, speed=speed)
    monkeypatch.setattr(runtime, "distribute", lambda network: network)
    plain = runtime.train_network(NetworkSettings(name="tiny"), CLASSES)
    synchronised = runtime.train_network(
        NetworkSettings(name="tiny", sync_batch_norm=True), CLASSES
    )
    kinds = [
        sum(type(layer) is kind for layer in network.modules())
        for network in (plain, synchronised)
        for kind in (nn.BatchNorm2d, nn.SyncBatchNorm)
    ]
    assert kinds[0] == kinds[3] > 0
    assert kinds[1] == kinds[2] == 0
    assert ("at each synchronised batch norm" in caplog.text) == compiled


def test_modes_of_compile():
    modes = {
        (compile, graphs): SpeedSettings(compile=compile, cuda_graphs=graphs).mode
        for compile in ("default", "max-autotune")
        for graphs in (False, True)
    }
    assert modes == {
        ("default", False): None,
        ("default", True): "reduce-overhead",
        ("max-autotune", False): "max-autotune-no-cudagraphs",
        ("max-autotune", True): "max-autotune",
    }
    with pytest.raises(ValueError, match=r"add --speed\.compile"):
        SpeedSettings(cuda_graphs=True)
    with pytest.raises(ValueError, match="bucket-mib must be at least 1; got 0"):
        SpeedSettings(bucket_mib=0)


def test_garbage_is_left_alone_within_the_context_alone():
    assert gc.isenabled()
    with contextlib.suppress(KeyError), manual_garbage_collection():
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
        raise KeyError
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
