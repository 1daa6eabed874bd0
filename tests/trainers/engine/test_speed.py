"""Fast steps: compiled networks compute the same and resume exactly; what settings promise."""

import contextlib
import copy
import gc
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from warpseg.trainers.engine.checkpoint import load_checkpoint
from warpseg.trainers.engine.networks import NetworkSettings
from warpseg.trainers.engine.optimization import OptimizerSettings
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.engine.speed import SpeedSettings, manual_garbage_collection
from warpseg.trainers.runs.run import Run
from warpseg.trainers.runs.train import train

sys.path.insert(0, str(Path(__file__).parents[1]))
from steps import CLASSES, TAUGHT, build, close, first_batches
from tiny import METHOD_RECIPES, tiny_recipe

COMPILED = SpeedSettings(compile="default", backend="aot_eager")
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
