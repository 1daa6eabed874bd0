"""Memory of a step: the model on meta against the CPU allocator's record, and the command."""

import gc
import json

import pytest
import torch
from tiny import METHOD_RECIPES, tiny_recipe
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from warpseg.benchmarks import commands
from warpseg.benchmarks.measures import memory
from warpseg.benchmarks.measures.plain_memory import modeled_plain
from warpseg.benchmarks.words.steps import MemorySettings
from warpseg.kernels.dispatch import kernels
from warpseg.models import SegmentationNetwork
from warpseg.pipelines import GeometrySettings
from warpseg.trainers.engine.networks import NetworkSettings
from warpseg.trainers.runs.measuring import allocations
from warpseg.trainers.runs.measuring.memory_model import modeled_step
from warpseg.trainers.runs.measuring.workload import supervised_part

CLASSES = 19


def recipe(name, size=96, **changes):
    geometry = GeometrySettings(crop_size=(size, size))
    return tiny_recipe(METHOD_RECIPES[name], geometry=geometry, **changes)


def peak(phases):
    return max(phase.peak for phase in phases)


@pytest.mark.parametrize("name", ["supervised", "consistency", "consistency-mt", "mkd"])
def test_the_model_agrees_with_the_allocators_record(name):
    settings = recipe(name)
    with kernels("reference"):
        modeled = modeled_step(name, settings, CLASSES)
    measured = memory._measure_ours(name, settings, MemorySettings(device="cpu", classes=CLASSES))
    assert [phase.name for phase in modeled] == [phase.name for phase in measured.phases]
    for ours, true in zip(modeled, measured.phases, strict=True):
        assert ours.after == pytest.approx(true.after, rel=0.01), ours.name
    # An operation's own scratch space is the difference.
    assert peak(modeled) == pytest.approx(measured.peak, rel=0.06)


@pytest.mark.parametrize("name", ["light-timm:test_vit", "swiftnet-timm:test_efficientnet"])
@pytest.mark.parametrize("freeze", ["none", "backbone"])
def test_the_model_agrees_for_encoders_of_timm(name, freeze):
    network = NetworkSettings(name=name, freeze=freeze)
    settings = recipe("supervised", network=network)
    with kernels("reference"):
        modeled = modeled_step("supervised", settings, CLASSES)
    measured = memory._measure_ours(
        "supervised", settings, MemorySettings(device="cpu", classes=CLASSES)
    )
    for ours, true in zip(modeled, measured.phases, strict=True):
        assert ours.after == pytest.approx(true.after, rel=0.02), ours.name
    assert peak(modeled) == pytest.approx(measured.peak, rel=0.2)


def test_the_model_counts_what_is_kept_for_parameters():
    settings = recipe("supervised")
    phases = modeled_step("supervised", settings, CLASSES)
    network = settings.network.build(CLASSES)
    parameters = 4 * sum(p.numel() for p in network.parameters())
    buffers = allocations.bytes_of(network.buffers())
    batch = 2 * 96 * 96 * (3 * 4 + 1)
    assert phases[-1].after == pytest.approx(3 * parameters + buffers + batch, abs=64)
    # After the backward pass, gradients as well, and the loss.
    assert phases[1].after == pytest.approx(4 * parameters + buffers + batch, abs=64)


def test_fused_losses_add_little_to_supervised_training_and_plain_ones_much():
    settings = recipe("consistency", size=192)
    supervised = supervised_part(settings)
    with kernels("triton"):
        stages = modeled_step("x", settings, CLASSES)
        ours = [peak(modeled_step("x", supervised, CLASSES)), peak(stages)]
        half = peak(modeled_step("x", settings, CLASSES, "bf16"))
    staged = peak(modeled_plain("x", settings, CLASSES))
    joint = peak(modeled_plain("x", settings, CLASSES, staged=False))
    assert half < ours[1] < staged < joint
    # In one step the views of both streams lie there, so its stages compare the losses alone.
    labeled, unlabeled = (
        max(phase.peak for phase in stages if phase.name.startswith(f"{stage}: "))
        for stage in ("supervised", "consistency")
    )
    assert unlabeled < 1.1 * labeled
    assert ours[1] < staged / 2


@pytest.mark.parametrize(("plain", "expected"), [(False, [1, 2]), (True, [1, 1, 2, 2, 2])])
def test_every_subject_is_measured_alone_and_in_one_precision(plain, expected, monkeypatch):
    alive, dtypes, profiled = [], set(), memory.profiled

    def networks():
        return [o for o in gc.get_objects() if issubclass(type(o), SegmentationNetwork)]

    def look(module, _, out):
        if isinstance(module, nn.Conv2d):
            dtypes.add(out.dtype)

    def measured(*words):
        alive.append(len(networks()) - before)
        hook = register_module_forward_hook(look)
        try:
            return profiled(*words)
        finally:
            hook.remove()

    monkeypatch.setattr(memory, "profiled", measured)
    gc.collect()
    before = len(networks())
    gc.disable()
    try:
        settings = MemorySettings(device="cpu", plain=plain, precision="bf16")
        subjects = memory.measure({"x": recipe("consistency-mt", size=32)}, settings)
    finally:
        gc.enable()
    # Supervised training has one network, a mean teacher is a second one.
    assert alive == expected
    assert dtypes == {torch.bfloat16}
    assert {subject.precision for subject in subjects} == {"bf16"}
    assert {subject.instrument for subject in subjects} == {"CPU profiler, bf16"}


def test_what_was_allocated_before_does_not_count(monkeypatch):
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 700)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 900)

    def step(phase):
        with phase("only"):
            pass

    (found,) = allocations.on_cuda(step, torch.device("cuda"), 600)
    assert (found.after, found.peak) == (100, 300)


def test_the_tracker_follows_storages_until_they_are_freed():
    def step(phase):
        with phase("made"):
            first = torch.zeros(1000)
            view = first.view(10, 100)
            torch.ones(500).sum()
        with phase("freed"):
            del first, view

    held = [torch.zeros(10)]
    made, freed = allocations.track(step, held)
    assert (made.after, made.peak) == (4040, 4040 + 2000 + 4)
    assert freed.after == 40


def test_the_command_writes_its_results(tmp_path, capfd):
    out = tmp_path / "memory.json"
    words = [
        "memory",
        "tiny-consistency",
        "--model",
        "--plain",
        "--classes",
        "5",
        "--out",
        str(out),
    ]
    assert commands.bench([*words, "--batch-size", "3"]) == 0
    printed = capfd.readouterr().out
    assert "x supervised" in printed
    assert "consistency: backward" in printed
    steps = json.loads(out.read_text())["steps"]
    names = ["supervised", "supervised, plain", "tiny-consistency"]
    names += ["tiny-consistency, plain", "tiny-consistency, plain, one backward"]
    assert [step["name"] for step in steps] == names
    assert {step["precision"] for step in steps} == {"fp32"}
    assert steps[0]["settings"]["batch_size"] == 3
    assert steps[2]["ratio"] == steps[2]["peak"] / steps[0]["peak"]
    with pytest.raises(ValueError, match="takes one RECIPE or more"):
        commands.bench(["memory", "--model"])
