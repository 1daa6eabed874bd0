"""The kernel benchmark: no number for a wrong operation, targets judged, files written."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from warpseg import kernels as ops
from warpseg.benchmarks import commands
from warpseg.benchmarks.measures.kernels import kernels as bench
from warpseg.benchmarks.measures.kernels.case import Case, Draw, Target
from warpseg.benchmarks.measures.kernels.cases import cases
from warpseg.benchmarks.measures.kernels.gate import differences, gate
from warpseg.benchmarks.timing import Times
from warpseg.benchmarks.words.kernels import KernelsSettings
from warpseg.kernels.dispatch import kernels as forced

OPS = ["cutmix", "random_crop", "feature_shift", "class_moments", "cross_entropy", "strong_view"]


def _case(function, baseline=None, **options) -> Case:
    inputs = (torch.linspace(-1, 1, 12),)
    return Case(
        op="square",
        size="12",
        function=function,
        baseline=baseline,
        inputs=inputs,
        floor_bytes=48,
        **options,
    )


@pytest.mark.parametrize("op", OPS)
def test_runs_and_writes(op, tmp_path, capsys):
    words = ["--op", op, "--size", "2", "16", "24", "--device", "cpu", "--out", str(tmp_path)]
    assert commands.bench(["kernels", *words]) == 0
    said = capsys.readouterr().out
    assert "references on a CPU, not the kernels" in said
    written = json.loads((tmp_path / "kernels.json").read_text())
    assert written["device"] == "cpu"
    assert {"name", "torch", "triton", "commit", "date", "python"} <= set(written)
    for row in written["rows"]:
        assert row["op"].startswith(op)
        assert row["gate"] == ""
        assert set(row["times"]) == {"eager"}
        assert 0 < row["times"]["eager"]["low"] <= row["times"]["eager"]["high"]
        assert all(verdict == "not measured" for verdict in row["verdicts"].values())
    assert (tmp_path / "kernels.md").read_text() in said
    with Image.open(tmp_path / "kernels.png") as image:
        assert len(image.getcolors(1 << 16) or []) > 2


def test_a_wrong_operation_gets_no_number(monkeypatch, capsys, tmp_path):
    def wrong(x: torch.Tensor) -> torch.Tensor:
        return x.square() * 1.001

    case = _case(wrong, torch.square, gradient=0, exact=(0,))
    monkeypatch.setattr(bench, "cases", lambda *_: iter([case]))
    assert bench.measure(KernelsSettings(device="cpu")) == 1
    assert "WRONG: output: relative error 1.0e-03; gradient: relative" in capsys.readouterr().out
    right = _case(torch.square, torch.square, gradient=0, exact=(0,))
    monkeypatch.setattr(bench, "cases", lambda *_: iter([right]))
    assert bench.measure(KernelsSettings(device="cpu")) == 0
    assert "WRONG" not in capsys.readouterr().out


def test_what_is_mutated_is_a_copy_at_the_gate():
    def add(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        tensors[0] += 1
        return tensors

    held = [torch.zeros(3)]
    case = Case(op="add", size="3", function=add, inputs=(held,), floor_bytes=12, mutated=0)
    assert case.run(add, aside=True)["0"].tolist() == [1, 1, 1]
    assert held[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("actual", "expected", "words"),
    [
        (torch.ones(3), torch.ones(3) + 1e-6, ""),
        (torch.ones(3), torch.ones(3) + 1e-4, "relative error 1.0e-04"),
        (torch.ones(3).bfloat16(), torch.ones(3) + 5e-3, ""),
        (torch.full((3,), torch.nan), torch.ones(3), "relative error nan"),
        (torch.ones(3), torch.full((3,), torch.nan), "relative error nan"),
        (torch.ones(3), torch.ones(4), "shape"),
        (torch.ones(9, dtype=torch.uint8), torch.zeros(9, dtype=torch.uint8), "differ"),
        (torch.tensor([5, 6]), torch.tensor([5, 7]), "differ"),
        (torch.tensor([True]), torch.tensor([True]), ""),
    ],
)
def test_differences(actual, expected, words):
    found = differences({"x": actual}, {"x": expected}, (1e-5, 255.0))
    assert words in found
    assert bool(found) == bool(words)


def test_levels_may_round_either_way_but_no_further():
    image = torch.zeros(10_000, dtype=torch.uint8)
    near, far = image.clone(), image.clone()
    near[0], far[0] = 1, 2
    assert differences({"x": near}, {"x": image}, (1e-3, 1.0)) == ""
    assert "by up to 2" in differences({"x": far}, {"x": image}, (1e-3, 1.0))
    assert differences({"y": near}, {"x": image}, (1e-3, 1.0)).startswith("outputs")


@pytest.mark.parametrize("op", ["warp", "inverse_splat"])
def test_warps_of_wide_images_are_right_to_a_thousandth_of_a_pixel(op):
    (case,) = cases(torch.device("cpu"), (1, 2, 1024), op)
    with forced("triton"):
        assert gate(case) == ""
    (case,) = cases(torch.device("cpu"), (2, 96, 1024), op)
    assert gate(case) == ""

    spline = Draw(device=torch.device("cpu"), size=(2, 96, 1024)).spline()
    spline.weights[:, -3, 0] += 1.5e-3 / 1024
    wrong = replace(case, function=lambda values: getattr(ops, op)(values, spline))
    assert "relative error" in gate(replace(wrong, baseline=case.function))


def test_verdicts():
    target = Target(speedup=5, memory=1 / 20, milliseconds=0.25, asynchronous=True)

    def times(milliseconds: float) -> Times:
        return Times(low=milliseconds, median=milliseconds, high=milliseconds)

    row = bench.Row(op="x", size="y", floor_bytes=1)
    assert set(bench.verdicts(target, row, True).values()) == {"not measured"}
    row.times = {"compiled": times(1.0), "op": times(0.1)}
    row.memory, row.waits = {"compiled": 4000, "op": 100}, False
    assert all(word.startswith("pass") for word in bench.verdicts(target, row, True).values())
    assert set(bench.verdicts(target, row, False).values()) == {"not measured"}
    row.times["op"], row.memory["op"], row.waits = times(0.3), 400, True
    assert all(word.startswith("MISS") for word in bench.verdicts(target, row, True).values())


def test_user_errors(monkeypatch):
    with pytest.raises(ValueError, match="no operation 'nothing'"):
        bench.measure(KernelsSettings(op="nothing", device="cpu", size=(1, 8, 8)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device"):
        bench.measure(KernelsSettings(device="cuda"))
    with pytest.raises(ValueError, match="no CUDA device"):
        commands.bench(["inference", "--device", "cuda"])


@pytest.mark.slow
def test_every_operation_is_right():
    """All cases through the gate: on the GPU, or here in Triton's interpreter."""
    with forced("triton"):
        assert bench.measure(KernelsSettings(size=(2, 24, 32))) == 0


def test_the_compile_report_goes_where_it_is_told(monkeypatch, tmp_path):
    before = bench.compiled.REPORT.read_bytes()
    report = json.loads(before)
    monkeypatch.setattr(bench.compiled, "measure", lambda jobs: report)
    bench.measure(KernelsSettings(compile=True, out=tmp_path / "told"))
    assert json.loads((tmp_path / "told" / "kernels-compiled.json").read_text()) == report
    assert "sm_80" in (tmp_path / "told" / "kernels-compiled.md").read_text()
    assert bench.compiled.REPORT.read_bytes() == before


def test_what_fails_is_a_row_and_the_others_stay(monkeypatch, tmp_path, capsys):
    right = _case(torch.square, torch.square, gradient=0, exact=(0,))
    written = []

    def broken(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such instruction\nand more")

    def time_of(run, device):
        if len(written) == 1:
            raise RuntimeError("too slow")
        return times(run, device)

    def write_text(path, text):
        if path.suffix == ".json":
            written.append(json.loads(text)["rows"])
        return write(path, text)

    times, write = bench.time_of, bench.write_text
    cases = [right, right, _case(broken, broken)]
    monkeypatch.setattr(bench, "cases", lambda *_: iter(cases))
    monkeypatch.setattr(bench, "time_of", time_of)
    monkeypatch.setattr(bench, "write_text", write_text)
    assert bench.measure(KernelsSettings(device="cpu", out=tmp_path)) == 1
    assert [len(rows) for rows in written] == [1, 2, 3]
    *_, (first, second, third) = written
    assert set(first["times"]) == {"eager"}
    assert second["times"] == {}
    assert second["faults"] == {"eager": "RuntimeError: too slow"}
    assert third["gate"] == "RuntimeError: no such instruction"
    said = capsys.readouterr()
    assert "eager failed: RuntimeError: too slow" in said.out
