"""Steps, plain and ours, their phases; networks on one image; ranks."""

import json
from contextlib import contextmanager

import pytest
import torch
from tiny import METHOD_RECIPES, tiny_recipe
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from warpseg.benchmarks import commands
from warpseg.benchmarks.contenders import steps as step_contenders
from warpseg.benchmarks.contenders.plain import plain_step
from warpseg.benchmarks.contenders.plain_loader import PlainLoader
from warpseg.benchmarks.contenders.plain_step import PlainSupervised, plain_batches
from warpseg.benchmarks.measures import inference, report, scaling, step
from warpseg.benchmarks.measures.phases import measure_phases
from warpseg.models import build_network
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.sources.synthetic import SyntheticSettings, load_synthetic
from warpseg.trainers.engine.networks import NetworkSettings
from warpseg.trainers.engine.optimization import OptimizerSettings, ScheduleSettings
from warpseg.trainers.engine.runtime import open_runtime
from warpseg.trainers.engine.settings import RunSettings, to_plain
from warpseg.trainers.engine.speed import SpeedSettings
from warpseg.trainers.recipes.registry import RECIPES, find_recipe
from warpseg.trainers.runs.measuring.workload import bench_settings, open_workload, supervised_part

CLASSES = 7


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    source = load_synthetic(SyntheticSettings(train=8, val=1, scene_size=(40, 48)))
    convert(source, root, PackSettings(encoding="jpeg", workers=1))
    return Dataset.open(root).root


PUBLISHED = {"gta": {"assistant_on": "pseudo"}, "mkd": {"consistency_on": "unlabeled"}}
"""Settings of the papers, which plain forms have, where recipes from scratch have others."""


def workload(name, **changes):
    settings = tiny_recipe(METHOD_RECIPES[name], **PUBLISHED.get(name, {}), **changes)
    return open_workload(name, settings, open_runtime("cpu"), CLASSES)


@pytest.mark.parametrize("name", METHOD_RECIPES)
def test_every_method_makes_a_step_of_constant_batches(name):
    made = workload(name)
    engine = made.engine()
    engine.run_step(made.micro_batches())
    losses = engine.means()
    assert losses
    assert all(0 <= value < 50 for value in losses.values()), losses
    assert made.images == 2 * len(made.method.streams)


@pytest.mark.parametrize(
    ("name", "staged"),
    [
        ("supervised", True),
        ("consistency", True),
        ("consistency", False),
        ("consistency-mt", True),
        ("gta", True),
        ("mkd", True),
        ("fixmatch", True),
        ("unimatch", True),
        ("unimatch-v2", True),
        ("prevmatch", True),
    ],
)
def test_the_plain_step_has_our_losses_and_leaves_our_weights(name, staged):
    # Adam's first steps tell only the gradient's sign.
    sgd = OptimizerSettings(name="sgd", lr=0.1, momentum=0.0, weight_decay=0.0)
    made = workload(name, optimizer=sgd, num_steps=4, schedule=ScheduleSettings(name="constant"))
    engine, networks = made.engine(), made.method.networks
    plain = plain_step(made.settings, CLASSES, torch.device("cpu"), staged=staged)
    assert plain is not None
    plain.load(networks)
    # PrevMatch: none, one, two snapshots, then the oldest of them is another.
    for number in range(4 if name == "prevmatch" else 2):
        engine.run_step(made.micro_batches())
        made.runtime.seed(made.settings.seed, number)
        ours, theirs = engine.means(), plain.run(made.batches)
        for stage, value in theirs.items():
            assert value.item() == pytest.approx(ours[stage], rel=2e-3), stage
    for part, network in plain.networks().items():
        for own, other in zip(network.parameters(), networks[part].parameters(), strict=True):
            torch.testing.assert_close(own, other, rtol=2e-3, atol=2e-4)


def test_a_method_without_a_plain_form_has_none():
    settings = tiny_recipe(METHOD_RECIPES["2w-c1"])
    assert plain_step(settings, CLASSES, torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("network", "name"),
    [
        *(("tiny", name) for name in ("supervised", "consistency-mt", "gta", "mkd", "unimatch")),
        ("swiftnet-rn18", "supervised"),
        ("deeplabv3plus-rn50", "supervised"),
    ],
)
def test_the_plain_step_is_planar_throughout(network, name):
    made = workload(name, network=NetworkSettings(name=network))
    plain = plain_step(made.settings, CLASSES, torch.device("cpu"))
    assert plain is not None
    plain.load(made.method.networks)
    with convolutions() as seen:
        # Also in the second step, after the optimizer and the moving averages.
        plain.run(plain_batches(made.batches))
        plain.run(plain_batches(made.batches))
    assert seen
    assert all(map.is_contiguous() for map in seen)
    with convolutions() as seen:
        made.engine().run_step(made.micro_batches())
    assert all(map.is_contiguous(memory_format=torch.channels_last) for map in seen)


@contextmanager
def convolutions():
    """Gather the outputs of convolutions whose layout can be told."""
    seen = []

    def look(module, _, out):
        if isinstance(module, nn.Conv2d) and out.shape[1] > 1 and out.shape[2:].numel() > 1:
            seen.append(out.detach())

    hook = register_module_forward_hook(look)
    try:
        yield seen
    finally:
        hook.remove()


def test_the_plain_form_of_a_single_image_is_planar_and_ours_is_not():
    network = build_network("tiny", CLASSES).eval()
    image, mask = torch.randn(1, 3, 32, 64), torch.zeros(1, 32, 64, dtype=torch.uint8)
    forms = inference._forms(network, image, mask)
    # Ours first: neither may turn the other's network round.
    for name, layout in (
        ("warpseg, fp32", torch.channels_last),
        ("plain PyTorch, fp32", torch.contiguous_format),
        ("warpseg, fp32", torch.channels_last),
    ):
        with convolutions() as seen:
            forms[name]()
        assert seen
        assert all(map.is_contiguous(memory_format=layout) for map in seen), name


@pytest.mark.parametrize("plain", ["fp32", "amp"])
def test_the_plain_step_has_images_of_its_own_precision(plain, capsys):
    words = ["tiny-consistency", "--device", "cpu", "--precision", "bf16", "--plain", plain]
    assert commands.bench(["step", *words, "--rounds", "1", "--steps", "1"]) == 0
    assert f"plain PyTorch, {plain}, constant batch" in capsys.readouterr().out


def test_no_figures_where_the_losses_differ(monkeypatch):
    made = workload("supervised")
    monkeypatch.setattr(PlainSupervised, "load", lambda *_: None)
    with pytest.raises(RuntimeError, match=r"has loss supervised .*: no figures"):
        step_contenders.check_plain(made, made.engine(), ("fp32",), CLASSES)


def test_phases_tell_networks_from_losses():
    made = workload("consistency-mt")
    engine = made.engine()
    phases = measure_phases(made, engine, steps=2)
    found = {(phase.stage, phase.kind) for phase in phases}
    for stage in ("supervised", "consistency"):
        for kind in ("network forward", "loss forward", "network backward", "loss backward"):
            assert (stage, kind) in found
    assert {("consistency", "optimizer"), ("consistency", "after")} <= found
    assert all(phase.milliseconds >= 0 for phase in phases)
    assert made.method.networks["student"]._compiled_call_impl is None


def test_phases_of_compiled_networks_do_not_compile_them_anew():
    settings = tiny_recipe(METHOD_RECIPES["consistency-mt"])
    speed = SpeedSettings(compile="default", backend="eager")
    made = open_workload("x", settings, open_runtime("cpu", speed=speed), CLASSES)
    engine = made.engine()
    try:
        for _ in range(2):
            engine.run_step(made.micro_batches())
        with torch.compiler.set_stance("fail_on_recompile"):
            phases = measure_phases(made, engine, steps=1)
    finally:
        torch.compiler.reset()
    assert {"network forward", "network backward"} <= {phase.kind for phase in phases}


def test_supervised_shares_all_that_it_can():
    settings = tiny_recipe(METHOD_RECIPES["mkd"], batch_size=3)
    assert supervised_part(settings).batch_size == 3
    assert supervised_part(settings).optimizer == settings.optimizer
    changed = bench_settings("tiny-mkd", ["--batch-size", "5", "--network.weights", "imagenet"])
    assert (changed.batch_size, changed.network.weights) == (5, "none")


def test_the_command_times_all_in_turns(data, tmp_path, capsys):
    out = tmp_path / "step.json"
    words = ["step", "tiny-consistency", "--data", str(data), "--rounds", "2", "--steps", "1"]
    words += ["--loader.loader", "portable", "--plain", "fp32", "amp", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlainLoader, "WORKERS", 0)
        assert commands.bench(words) == 0
    printed = capsys.readouterr().out
    assert "of the step: network" in printed
    result = json.loads(out.read_text())
    assert [row["name"] for row in result["rows"]] == [
        "warpseg, constant batch",
        "warpseg, loader",
        "plain PyTorch, fp32, constant batch",
        "plain PyTorch, fp32, DataLoader",
        "plain PyTorch, amp, constant batch",
        "plain PyTorch, amp, DataLoader",
    ]
    assert all(len(row["images_per_second"]) == 2 for row in result["rows"])
    assert result["flops"] > 0
    assert commands.bench(["report", str(out), "--out", str(tmp_path / "page.md")]) == 0
    page = (tmp_path / "page.md").read_text()
    assert "## Training step: step" in page
    assert f"[step.json](step.json): {result['machine']['name']}" in page
    assert (tmp_path / "step.png").is_file()


def test_a_window_starts_without_ready_batches_and_counts_its_own_memory(monkeypatch):
    called, own = [], torch.zeros(25)
    row = step_contenders.Row(name="x", images=2)
    contender = step_contenders.Contender(
        row, lambda: called.append("step"), lambda: [own], lambda: called.append("drain")
    )
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda _: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 1000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 1300)
    step._window(contender, 2, torch.device("cuda"))
    assert called == ["drain", "step", "step", "step"]
    # 900 of the bytes are other contenders'.
    assert row.peak_memory == 400


def test_contenders_hold_networks_optimizers_and_batches_and_drain_their_loaders(data):
    made = workload("supervised")
    engine, dataset = made.engine(), Dataset.open(data)
    plains = step_contenders.check_plain(made, engine, ("fp32",), CLASSES)
    (plain,) = plains.values()
    ours = step_contenders.constant_contender(made, engine)
    held = step.bytes_of(ours.held())
    weights = step.bytes_of(made.method.networks["student"].parameters())
    buffers = step.bytes_of(made.method.networks["student"].buffers())
    batch = 2 * 32 * 32 * (3 * 4 + 1)
    # Adam keeps two numbers for each weight, and the number of steps.
    assert held == pytest.approx(3 * weights + buffers + batch, rel=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlainLoader, "WORKERS", 0)
        theirs, loaded = step_contenders.plain_contenders(
            "x", plain, plain_batches(made.batches), made, dataset, None
        )
    assert step.bytes_of(theirs.held()) == pytest.approx(held, rel=0.01)
    assert step.bytes_of(loaded.held()) == pytest.approx(held - batch, rel=0.01)
    loader = step_contenders.loader_contender(made, engine, dataset, None)
    with pytest.MonkeyPatch.context() as patch:
        taken = []
        patch.setattr(step_contenders, "next_batches", lambda streams: taken.append(1))
        loader.drain()
    assert len(taken) == made.settings.loader.prefetch + 1


def test_the_memory_column_says_what_it_is_and_rates_count_our_images():
    row = {"name": "x", "images_per_second": [2.0], "cpu_ms_per_image": [1.0], "rate": 2.0}
    rows = [{**row, "images": images, "peak_memory": 2**20} for images in (8, 4)]
    settings = to_plain(tiny_recipe(METHOD_RECIPES["supervised"]))
    result = {"recipe": "x", "precision": "fp32", "flops": 8e12, "rows": rows}
    result["machine"] = {"device": "cuda"}
    first, _ = step.tables(result | {"settings": settings, "phases": PHASES})
    assert "peak memory: networks, optimizer state, batches" in first.remark
    assert [cells[4] for cells in first.rows] == ["2.000", "2.000"]


PHASES = [{"stage": "x", "kind": "network forward", "milliseconds": 1.0}]


def test_a_network_is_timed_once_its_losses_agree(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inference, "time_of", lambda function, _: function() and TIMES)
    out = tmp_path / "inference.json"
    words = ["inference", "--networks", "tiny", "--sizes", "32x64", "--device", "cpu"]
    assert commands.bench([*words, "--out", str(out)]) == 0
    assert "200.0" in capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert [row["form"] for row in rows] == ["plain PyTorch, fp32", "warpseg, fp32"]
    with pytest.raises(ValueError, match="takes HEIGHTxWIDTH"):
        inference.measure("tiny", "32", torch.device("cpu"))
    with pytest.raises(ValueError, match="no network 'nothing'"):
        inference.measure("nothing", "32x32", torch.device("cpu"))


TIMES = inference.Times(low=4.0, median=5.0, high=6.0)


def test_a_rank_writes_what_it_measured(tmp_path, monkeypatch):
    result = tmp_path / "result.json"
    monkeypatch.setenv(scaling._RESULT, str(result))
    words = ["scaling", "tiny-supervised", "--steps", "2", "--device", "cpu"]
    assert commands.bench(words) == 0
    row = json.loads(result.read_text())
    assert (row["ranks"], row["images"]) == (1, 2)
    assert row["images_per_second"] == pytest.approx(2 / row["step_ms"] * 1e3)


def test_efficiency_is_of_a_rank_alone(tmp_path, monkeypatch, capsys):
    rates = {1: 10.0, 2: 16.0}

    def launched(count, *_):
        return {"ranks": count, "images": 2 * count, "step_ms": 1.0} | {
            "images_per_second": rates[count]
        }

    monkeypatch.setattr(scaling, "_launch", launched)
    out = tmp_path / "scaling.json"
    assert commands.bench(["scaling", "tiny-supervised", "--out", str(out)]) == 0
    assert "80.0%" in capsys.readouterr().out
    assert "80.0%" in report.markdown([out], tmp_path)


@pytest.mark.slow
def test_two_ranks_are_launched(tmp_path):
    out = tmp_path / "scaling.json"
    words = ["supervised-synthetic-swiftnet18-tiny", "--geometry.crop-size", "32", "32"]
    words += ["--batch-size", "2", "--steps", "2", "--device", "cpu", "--out", str(out)]
    assert commands.bench(["scaling", *words]) == 0
    assert [row["ranks"] for row in json.loads(out.read_text())["rows"]] == [1, 2]


def test_a_contender_that_fails_is_a_row_and_what_was_measured_stays(monkeypatch, tmp_path, capsys):
    out, seen = tmp_path / "step.json", []
    run = PlainSupervised.run
    calls = []

    def breaks(self, batches):
        calls.append(1)
        # Compared, warmed up, counted twice, then the first window.
        if len(calls) > 1 + step.WARM_UP + 2 + 2:
            raise RuntimeError("out of something\nand more")
        return run(self, batches)

    def written(result, path):
        seen.append([len(row["images_per_second"]) for row in result["rows"]])
        return write(result, path)

    write = step.write
    monkeypatch.setattr(PlainSupervised, "run", breaks)
    monkeypatch.setattr(step, "write", written)
    words = ["tiny-supervised", "--device", "cpu", "--plain", "fp32", "--rounds", "2"]
    assert commands.bench(["step", *words, "--steps", "1", "--out", str(out)]) == 1
    # After each window, and at the end.
    assert seen == [[1, 0], [1, 1], [2, 1], [2, 1], [2, 1]]
    rows = json.loads(out.read_text())["rows"]
    assert [row["fault"] for row in rows] == ["", "RuntimeError: out of something"]
    assert "constant batch failed: RuntimeError: out of something" in capsys.readouterr().out


def test_other_losses_are_a_row_as_well(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(PlainSupervised, "load", lambda *_: None)
    out = tmp_path / "step.json"
    words = ["tiny-supervised", "--device", "cpu", "--plain", "fp32", "--rounds", "1"]
    assert commands.bench(["step", *words, "--steps", "1", "--out", str(out)]) == 1
    ours, plain = json.loads(out.read_text())["rows"]
    assert len(ours["images_per_second"]) == 1
    assert "has loss supervised" in plain["fault"]
    assert plain["images_per_second"] == []
    assert commands.bench(["report", str(out), "--out", str(tmp_path / "page.md")]) == 0


def test_pretrained_recipes_can_be_measured_without_their_weights():
    for name in [name for name in RECIPES if "lite0" in name or "dinov2-s14" in name]:
        if isinstance(find_recipe(name), RunSettings):
            assert bench_settings(name, []).network.weights == "none"
