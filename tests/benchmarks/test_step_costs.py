"""What a step launches and holds on a CPU, of each contender: counted, not timed."""

import json

import pytest
import torch
from tiny import METHOD_RECIPES, tiny_recipe
from warpseg.benchmarks import commands
from warpseg.benchmarks.contenders import steps as contenders
from warpseg.benchmarks.contenders.plain_step import PlainSupervised, plain_batches
from warpseg.benchmarks.measures import step
from warpseg.trainers.engine.runtime import open_runtime
from warpseg.trainers.engine.steps.draws import drawn
from warpseg.trainers.runs.measuring.allocations import track
from warpseg.trainers.runs.measuring.launches import LaunchCounter, count_launches
from warpseg.trainers.runs.measuring.workload import open_workload

CLASSES = 7
PUBLISHED = {"gta": {"assistant_on": "pseudo"}, "mkd": {"consistency_on": "unlabeled"}}
LAUNCHES = {
    "supervised": (105, 265),
    "consistency": (307, 443),
    "consistency-mt": (309, 561),
    "gta": (359, 868),
    "mkd": (1032, 1148),
    "fixmatch": (286, 571),
    "unimatch": (529, 596),
    "unimatch-v2": (490, 758),
    "prevmatch": (916, 871),
}
"""Launches of a step of the tiny network on a CPU, where losses go image by image: ours, and plain
PyTorch's. Whoever changes a step changes
these, and measures `benchmarks/results/step-cpu-*.json` anew."""
TORCH = "2.15."
"""The PyTorch that dispatches so much; others divide some operations differently."""


def both(name):
    """Return our contender of a method and the plain one, counted as `bench step` counts them."""
    settings = tiny_recipe(METHOD_RECIPES[name], **PUBLISHED.get(name, {}))
    made = open_workload(name, settings, open_runtime("cpu"), CLASSES)
    engine = made.engine()
    (plain,) = contenders.check_plain(made, engine, ("fp32",), CLASSES).values()
    batches = plain_batches(made.batches)
    ours = contenders.constant_contender(made, engine)
    (theirs,) = contenders.plain_contenders("plain", plain, batches, made, None, None)
    for contender in (ours, theirs):
        step._warm_up(contender)
        step._count_one(contender)
    return ours, theirs


@pytest.mark.skipif(not torch.__version__.startswith(TORCH), reason=f"counted with {TORCH}")
@pytest.mark.parametrize("name", LAUNCHES)
def test_a_step_of_each_contender_launches_so_much(name):
    assert tuple(contender.row.launches for contender in both(name)) == LAUNCHES[name]


@pytest.mark.parametrize("name", ["supervised", "unimatch"])
def test_memory_is_what_is_held_and_what_a_step_allocates(name):
    for contender in both(name):
        held = contender.held()

        def one(phase, contender=contender):
            with phase("step"):
                contender.step()

        (followed,) = track(one, held)
        assert contender.row.peak_memory > step.bytes_of(held)
        # Followed by its tensors, a step lacks what one operation holds inside itself.
        assert contender.row.peak_memory == pytest.approx(followed.peak, rel=0.1)


def test_views_and_allocations_launch_nothing_and_backward_passes_do():
    weight = torch.ones(3, requires_grad=True)
    assert count_launches(lambda: torch.empty(3).view(3, 1).t()) == 0
    assert count_launches(lambda: weight * 2) == 1
    # The loss, its gradient (ones), and the product's.
    with LaunchCounter() as counter:
        (weight * 2).sum().backward()
    assert counter.counts["aten.mul.Tensor"] == 2
    assert counter.counts["aten.sum.default"] == 1


def test_what_the_host_draws_is_one_copy():
    device = torch.device("cpu")

    def draw():
        torch.rand(3).add_(1)
        return torch.rand(2)

    assert count_launches(lambda: drawn(draw, device)) == 1
    assert count_launches(draw) == 3


def test_the_columns_are_filled_and_reported(tmp_path, capsys):
    out = tmp_path / "step.json"
    words = ["tiny-supervised", "--device", "cpu", "--rounds", "1", "--steps", "1"]
    assert commands.bench(["step", *words, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "launches" in printed
    assert "peak memory, MiB" in printed
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"][:5] for row in rows] == ["warps", "plain"]
    assert rows[0]["launches"] < rows[1]["launches"]
    assert all(row["peak_memory"] > 0 for row in rows)
    assert commands.bench(["report", str(out), "--out", str(tmp_path / "page.md")]) == 0
    page = (tmp_path / "page.md").read_text()
    assert f"| {rows[1]['launches']} |" in page
    assert "launches: operations dispatched in a step" in page


def test_what_is_counted_is_not_timed(monkeypatch):
    calls = []
    run = PlainSupervised.run
    monkeypatch.setattr(PlainSupervised, "run", lambda *given: calls.append(1) or run(*given))
    settings = tiny_recipe(METHOD_RECIPES["supervised"])
    asked = step.StepSettings(device="cpu", classes=CLASSES, rounds=1, steps=1)
    measured = step.measure("supervised", settings, asked)
    assert [len(row.images_per_second) for row in measured.rows] == [1, 1]
    # Compared, warmed up, counted twice; one step before the window, and the one that is timed.
    assert len(calls) == 1 + step.WARM_UP + 2 + 2


def test_results_without_launches_are_still_shown():
    row = {"name": "x", "images_per_second": [2.0], "cpu_ms_per_image": [1.0], "rate": 2.0}
    rows = [{**row, "images": 8, "peak_memory": None}]
    result = {"recipe": "x", "precision": "fp32", "flops": 0, "rows": rows, "phases": []}
    result["machine"] = {"device": "cpu"}
    settings = step.to_plain(tiny_recipe(METHOD_RECIPES["supervised"]))
    (table,) = step.tables(result | {"settings": settings})
    assert table.rows[0][-2:] == ("-", "-")
    assert "launches" not in table.remark


def test_ratios_on_a_cpu_are_of_processor_time():
    """Other work on the machine halves a rate, and no processor time."""
    slow = {"images_per_second": [2.0, 1.0], "cpu_ms_per_image": [30.0, 32.0]}
    fast = {"images_per_second": [2.0, 4.0], "cpu_ms_per_image": [15.0, 16.0]}
    assert step._ratios(slow, fast, on_cpu=True) == [0.5, 0.5]
    assert step._ratios(slow, fast, on_cpu=False) == [1.0, 0.25]
