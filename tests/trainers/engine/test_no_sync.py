"""No step, and no batch, makes the host wait for the device."""

import contextlib
import importlib
import pkgutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import warpseg.kernels
from warpseg.kernels import CutMixBoxes
from warpseg.pipelines.loaders.loading import Loader
from warpseg.pipelines.views import phtps
from warpseg.trainers.engine.streams import next_batches
from warpseg.trainers.methods import consistency
from warpseg.trainers.methods.shared import mixing

sys.path.insert(0, str(Path(__file__).parents[1]))
from no_sync import HostSync, no_host_sync
from steps import TAUGHT, build, close, first_batches
from tiny import METHOD_RECIPES, tiny_recipe


@pytest.fixture
def guarded(monkeypatch):
    """Return the guard's context, with all that does not run on a GPU, or is drawn on the host,
    taken out of it."""

    @contextlib.contextmanager
    def context():
        with no_host_sync() as guard:
            for module in map(
                kernel_module, pkgutil.walk_packages(warpseg.kernels.__path__, "warpseg.kernels.")
            ):
                for name in [n for n in vars(module) if n.endswith("_reference")]:
                    monkeypatch.setattr(module, name, guard.ignoring(getattr(module, name)))
            for module in (consistency, mixing):
                monkeypatch.setattr(module, "cutmix_boxes", guard.drawing(module.cutmix_boxes))
            draw = guard.drawing(phtps.sample_tps)
            monkeypatch.setattr(phtps, "sample_tps", draw)
            # Threads fill the host's memory as arrays.
            monkeypatch.setattr(Loader, "_submit", guard.ignoring(Loader._submit))
            yield guard

    return context


def kernel_module(info):
    return importlib.import_module(info.name)


@pytest.mark.parametrize("name", [*METHOD_RECIPES, *TAUGHT])
def test_no_step_waits_for_the_device(name, scenes, guarded):
    engine, batches = first_batches(name, scenes)
    with guarded() as guard:
        for batch in batches:
            engine.run_step([batch])
    assert guard.operations > 100


@pytest.mark.parametrize("cache", ["none", "device"])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("supervised-phtps", {}),
        ("consistency", {}),
        ("mkd", {}),
        ("mkd", {"weak_photometric": True}),
        ("unimatch", {}),
    ],
)
def test_no_batch_waits_for_the_device(name, changes, cache, scenes, guarded):
    settings = tiny_recipe(METHOD_RECIPES[name], **changes)
    loader = replace(settings.loader, loader="portable", cache=cache, threads=1)
    _, opened = build(replace(settings, loader=loader), scenes)
    # What fills the cache may wait.
    for _ in range(8):
        next_batches(opened)
    with guarded() as guard:
        next_batches(opened)
    assert guard.operations > 10
    close(opened)


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
