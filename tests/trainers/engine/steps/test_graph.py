"""Steps as graphs: the same bits as steps that run as they are, by a tape in place of CUDA."""

import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes
from warpseg.kernels import pixel_loss
from warpseg.kernels.labels import quantile
from warpseg.trainers.engine.optimization import OptimizerSettings
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.engine.speed import SpeedSettings
from warpseg.trainers.engine.steps import graph, recorder
from warpseg.trainers.engine.steps.buffers import form_of, kept
from warpseg.trainers.engine.steps.graph import ALIKE
from warpseg.trainers.engine.streams import next_batches
from warpseg.trainers.runs.measuring.workload import open_workload

sys.path.insert(0, str(Path(__file__).parents[2]))
from steps import CLASSES, TAUGHT, build, close, first_batches
from tape import HostRead, Tape
from tiny import METHOD_RECIPES, tiny_recipe

STEPS = ALIKE + 3
ALIKE_SOON = {
    "fixmatch": {"ema_decay": 0.5},
    "unimatch-v2": {"ema_decay": 0.5},
    "mkd": {"gamma": 0.5},
    "gta": {"ema_decay": 0.5, "assistant_decay": 0.5},
}
"""Moving averages that do not take a thousand steps to reach their share."""


@pytest.fixture
def tapes(monkeypatch):
    """Record steps on tapes; return those there are."""
    made = []

    def tape_of(device):
        made.append(Tape())
        monkeypatch.setattr(quantile, "select_reference", made[-1].whole(select))
        return made[-1]

    select = quantile.select_reference
    # A GPU tells of strange ids by NaN.
    monkeypatch.setattr(pixel_loss, "_check_known", lambda *_: None)
    monkeypatch.setattr(recorder, "recorder_of", tape_of)
    return made


def walk(value, name=""):
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in pairs:
            yield from walk(part, f"{name}/{key}")
    else:
        yield name, value


def differences(ours, theirs):
    """Name what two states do not share to the bit."""
    ours, theirs = dict(walk(ours)), dict(walk(theirs))
    assert ours.keys() == theirs.keys()
    return [
        name
        for name, value in ours.items()
        if not (
            torch.equal(value, theirs[name])
            if isinstance(value, torch.Tensor)
            else value == theirs[name]
        )
    ]


def trained(name, scenes, *, recorded, steps=STEPS, change=None, **changes):
    """Train some steps, as they are or by graphs; return the engine, its means and its state."""
    changes = {**ALIKE_SOON.get(name, {}), **changes}
    engine, batches = first_batches(name, scenes, count=steps, **changes)
    if not recorded:
        engine.graph = None
    if change is not None:
        change(engine)
    for batch in batches:
        engine.run_step([batch])
    return engine, engine.means(), engine.state_dict()


@pytest.mark.parametrize("name", [*METHOD_RECIPES, *TAUGHT])
def test_recorded_steps_have_the_bits_of_steps_as_they_are(name, scenes, tapes):
    _, means, state = trained(name, scenes, recorded=False)
    engine, means_by_graph, state_by_graph = trained(name, scenes, recorded=True)
    assert differences(state_by_graph, state) == []
    assert means_by_graph == means
    if name == "prevmatch":
        assert engine.graph.refused == (
            "PrevMatch does not say which of its steps are alike (regime)"
        )
    else:
        assert engine.graph.recorded is tapes[-1]
        assert engine.graph.seen > ALIKE + 1


@pytest.mark.parametrize("name", ["consistency-mt", "mkd"])
def test_recorded_steps_in_half_precision(name, scenes, tapes):
    states = [
        trained(name, scenes, recorded=recorded, precision="bf16")[2] for recorded in (False, True)
    ]
    assert differences(*states) == []
    assert len(tapes[-1].entries) > 100


def scaled_by_host(engine):
    """Let the loss depend on a number that the host counts."""
    calls = [0.0]
    stage = engine.groups[0][0]

    def loss(batches, step):
        calls[0] += 1
        terms = stage.loss(batches, step)
        return {**terms, "loss": terms["loss"] * calls[0]}

    engine.groups[0][0] = replace(stage, loss=loss)


def scaled_by_fresh_tensor(engine):
    """Let the loss depend on a tensor that each step makes outside of PyTorch."""
    stage = engine.groups[0][0]

    def loss(batches, step):
        with _disable_current_modes():
            fresh = torch.tensor(float(step))
        terms = stage.loss(batches, step)
        return {**terms, "loss": terms["loss"] * fresh}

    engine.groups[0][0] = replace(stage, loss=loss)


@pytest.mark.parametrize("change", [scaled_by_host, scaled_by_fresh_tensor])
def test_the_tape_notices_what_is_no_buffer(change, scenes, tapes):
    states = [
        trained("supervised", scenes, recorded=recorded, change=change)[2]
        for recorded in (False, True)
    ]
    assert any("networks" in name for name in differences(*states))


def test_a_step_that_cannot_be_recorded_runs_as_it_is(scenes, tapes, caplog):
    def reads(engine):
        stage = engine.groups[0][0]

        def loss(batches, step):
            terms = stage.loss(batches, step)
            terms["loss"].item()
            return terms

        engine.groups[0][0] = replace(stage, loss=loss)

    caplog.set_level("INFO")
    runs = [
        trained("consistency-mt", scenes, recorded=recorded, change=reads)
        for recorded in (False, True)
    ]
    assert differences(runs[0][2], runs[1][2]) == []
    assert runs[0][1] == runs[1][1]
    told = [r.message for r in caplog.records if "one by one" in r.message]
    assert len(told) == 1
    assert f"({HostRead.__name__}: the step reads a tensor's value)" in told[0]


def test_a_graph_is_made_anew_when_the_warm_up_ends(scenes, tapes, monkeypatch):
    made = []
    record = graph.StepGraph.record

    def noted(self, *args):
        made.append(self.key[0])
        return record(self, *args)

    monkeypatch.setattr(graph.StepGraph, "record", noted)
    options = {"warmup_steps": ALIKE + 3, "steps": 2 * ALIKE + 7}
    states = [trained("gta", scenes, recorded=recorded, **options)[2] for recorded in (False, True)]
    assert differences(*states) == []
    # The last warm-up step copies weights, so it is of its own kind.
    assert [regime[0] for regime in made] == ["warms up", "learns"]


def test_a_run_that_goes_back_records_anew(scenes, tapes):
    engine, batches = first_batches("supervised", scenes, count=2 * STEPS)
    for batch in batches[:STEPS]:
        engine.run_step([batch])
    before = engine.graph.recorded
    state = engine.state_dict()
    engine.load_state_dict(state)
    assert engine.graph.recorded is None
    for batch in batches[STEPS:]:
        engine.run_step([batch])
    assert engine.graph.recorded not in (None, before)
    _, means, whole = trained("supervised", scenes, recorded=False, steps=2 * STEPS)
    assert engine.means() == means
    assert differences(engine.state_dict(), whole) == []


def test_accumulated_batches_are_one_graph(scenes, tapes):
    states = []
    for recorded in (False, True):
        engine, batches = first_batches("consistency", scenes, count=2 * STEPS, accumulate=2)
        engine.graph = engine.graph if recorded else None
        for pair in zip(batches[::2], batches[1::2], strict=True):
            engine.run_step(list(pair))
        states.append(engine.state_dict())
    assert engine.graph.recorded is not None
    assert differences(*states) == []


def test_other_batches_wait_for_a_graph_of_their_own(scenes, tapes):
    engine, batches = first_batches("supervised", scenes, count=STEPS)
    for batch in batches:
        engine.run_step([batch])
    assert engine.graph.recorded is not None
    other = replace(batches[0]["labeled"], confidence=torch.ones(2, 32, 32))
    engine.run_step([{"labeled": other}])
    assert engine.graph.recorded is None
    with pytest.raises(AttributeError):
        engine.run_step([{"labeled": object()}])
    assert engine.graph.refused == "a batch holds a object, whose tensors are not known"


def test_the_recorder_of_a_gpu_draws_before_it_replays(scenes, monkeypatch):
    """By CUDA's own calls, with a tape behind them."""
    modes = []

    @contextmanager
    def capturing(made, capture_error_mode):
        modes.append(capture_error_mode)
        with made.capture():
            yield

    draw = recorder.CudaRecorder.draw

    def drawn_on_the_host(self, make, device):
        def quietly():
            with _disable_current_modes():
                return make()

        return draw(self, quietly, device)

    def filled(drawn, device):
        # A tape runs what it writes down, which a GPU does not.
        with _disable_current_modes():
            return kept(drawn)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    monkeypatch.setattr(pixel_loss, "_check_known", lambda *_: None)
    monkeypatch.setattr(recorder.CudaRecorder, "draw", drawn_on_the_host)
    monkeypatch.setattr(recorder, "like", filled)
    monkeypatch.setattr(recorder, "recorder_of", recorder.CudaRecorder)
    runs = [trained("mt-cutmix", scenes, recorded=recorded) for recorded in (False, True)]
    assert differences(runs[0][2], runs[1][2]) == []
    assert len(runs[1][0].graph.recorded.draws) == 1
    assert modes == ["thread_local"]


def test_batches_of_a_loader_and_constant_ones_are_alike(scenes):
    """`bench step` lets both take turns by one graph."""
    settings = tiny_recipe(METHOD_RECIPES["mt-1w-p2"])
    engine, streams = build(settings, scenes)
    loaded = next_batches(streams)
    close(streams)
    work = open_workload("x", settings, engine.runtime, CLASSES)
    assert form_of(work.micro_batches()[0]) == form_of(loaded)


def graph_for(scenes, *, optimizer=None, **changes):
    engine, _ = first_batches("supervised", scenes, count=0)
    runtime = Runtime(device=torch.device("cpu"), **changes)
    made = [optimizer] if optimizer else engine.optimizers.values()
    return graph.graph_of(runtime, made)


def test_when_steps_are_no_graphs(scenes, tapes):
    weight = torch.nn.Parameter(torch.zeros(1))
    assert graph_for(scenes).refused == ""
    assert "several ranks" in graph_for(scenes, world_size=2).refused
    each = torch.optim.Adam([weight], foreach=True)
    assert "only fused optimizers" in graph_for(scenes, optimizer=each).refused
    passes = SpeedSettings(compile="default", cuda_graphs=True)
    for speed in (passes, SpeedSettings(step_graph=False)):
        assert graph_for(scenes, speed=speed) is None


def test_there_are_no_graphs_on_a_cpu(scenes):
    assert graph_for(scenes) is None


def test_optimizers_are_capturable_on_a_gpu_while_a_step_is_recorded():
    adam = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], fused=True)
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], fused=True)
    for device, expected in (("cuda", True), ("cpu", False)):
        with graph.capturable([adam, sgd], torch.device(device)):
            assert adam.param_groups[0]["capturable"] is expected
            assert "capturable" not in sgd.param_groups[0]
        assert adam.param_groups[0]["capturable"] is False


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", METHOD_RECIPES)
def test_recorded_steps_learn_the_same_on_a_gpu(name, scenes):
    states = []
    for recorded in (False, True):
        settings = tiny_recipe(METHOD_RECIPES[name], **ALIKE_SOON.get(name, {}))
        settings = replace(settings, optimizer=OptimizerSettings(name="sgd", lr=1e-3))
        engine, streams = build(settings, scenes, "cuda")
        engine.graph = engine.graph if recorded else None
        for _ in range(STEPS):
            engine.run_step([next_batches(streams)])
        close(streams)
        states.append(engine.state_dict()["networks"])
    if name != "prevmatch":
        assert engine.graph.recorded is not None, engine.graph.refused
    torch.testing.assert_close(states[1], states[0], rtol=1e-3, atol=1e-4)
