"""Every kernel compiles for GPUs that are not here: no spills, no doubles, as the report says.

The default run holds the committed report to the kernels' sources, by hash, and compiles one case
of each kernel; the slow run compiles all. `warpseg bench kernels --compile` writes the report.
"""

import dataclasses
import json
import subprocess
import sys

import pytest
import triton
from warpseg.benchmarks.measures import compiled
from warpseg.kernels.compile import ARCHITECTURES
from warpseg.kernels.views import cutmix_triton

REMEDY = "run `warpseg bench kernels --compile` and commit benchmarks/results"
CASES = {case.name: case for case in compiled.all_cases()}


@pytest.fixture(scope="module")
def report() -> dict:
    return json.loads(compiled.REPORT.read_text())


def _hold(report: dict, pairs: list[tuple[str, int]]) -> None:
    rows = {case["name"]: case["compiled"] for case in report["cases"]}
    for result in compiled.compile_apart(pairs, jobs=1):
        name = f"{result.name} on sm_{result.architecture}"
        assert result.stack_bytes == 0, f"{name} spills {result.stack_bytes} bytes per thread"
        assert not result.double_precision, f"{name} computes in double precision"
        if report["triton"] == triton.__version__:
            row = rows[result.name][str(result.architecture)]
            now = {key: value for key, value in dataclasses.asdict(result).items() if key in row}
            assert now == row, f"{name} differs from the report: {REMEDY}"


def _one_of_each() -> list[tuple[str, int]]:
    """The first case of each kernel for sm_80, and the other architectures in turn."""
    kernels = {name.partition("/")[0]: name for name in reversed(CASES)}
    pairs = [(name, 80) for name in kernels.values()]
    return pairs + [
        (name, (90, 100)[n % 2]) for n, name in enumerate(kernels.values()) if n % 4 == 0
    ]


def test_the_report_is_of_these_kernels(report):
    assert [case["name"] for case in report["cases"]] == list(CASES), REMEDY
    for row in report["cases"]:
        case = CASES[row["name"]]
        assert row["key"] == compiled.source_key(case), f"{case.name} has changed: {REMEDY}"
        assert row["bytes_per_pixel"] == case.bytes_per_pixel, REMEDY
        assert row["floor_bytes_per_pixel"] == case.floor_bytes_per_pixel, REMEDY
        assert set(row["compiled"]) == {str(number) for number in ARCHITECTURES}
    page = compiled.REPORT.with_suffix(".md").read_text()
    assert page == compiled.table(report), REMEDY


def test_the_report_has_no_spills_and_no_doubles(report):
    assert compiled.failures(report) == []


def test_bytes_moved_are_at_least_the_floor():
    assert all(case.bytes_per_pixel >= case.floor_bytes_per_pixel >= 0 for case in CASES.values())


def test_one_of_each_compiles(report):
    _hold(report, _one_of_each())


@pytest.mark.slow
def test_all_compile(report):
    done = set(_one_of_each())
    pairs = [(name, number) for name in CASES for number in ARCHITECTURES]
    _hold(report, [pair for pair in pairs if pair not in done])


def test_failures_are_seen(report):
    name, row = report["cases"][0]["name"], report["cases"][0]["compiled"]["90"]
    spilling = {"cases": [{"name": name, "compiled": {"90": row | {"stack_bytes": 8}}}]}
    assert compiled.failures(spilling) == [f"{name} on sm_90: 8 bytes of stack"]
    doubling = {"cases": [{"name": name, "compiled": {"90": row | {"double_precision": True}}}]}
    assert compiled.failures(doubling) == [f"{name} on sm_90: double precision"]


def test_keys_change_with_what_decides_the_code(monkeypatch):
    case = next(case for case in cutmix_triton.compile_cases() if case.name == "cutmix/labels")
    key = compiled.source_key(case)
    changed = [
        dataclasses.replace(case, num_warps=8),
        dataclasses.replace(case, constexprs={**case.constexprs, "BLOCK": 512}),
        dataclasses.replace(case, signature={**case.signature, "C": "i64"}),
    ]
    assert len({key, *map(compiled.source_key, changed)}) == 4
    # What a kernel calls counts as its own code.
    monkeypatch.setattr(cutmix_triton, "from_partner", cutmix_triton._cutmix_kernel)
    assert compiled.source_key(case) != key


BAD_KERNELS = """
import triton
import triton.language as tl
from warpseg.kernels.compile import CompileCase, compile_case


@triton.jit
def double(x_ptr):
    tl.store(x_ptr, (tl.load(x_ptr).to(tl.float64) * 1.1).to(tl.float32))


@triton.jit
def spill(x_ptr, y_ptr):
    lane = tl.arange(0, 16384)
    x = tl.load(x_ptr + lane)
    y = tl.load(y_ptr + lane)
    for _ in range(10):
        x, y = tl.dot(tl.reshape(x, (128, 128)), tl.reshape(y, (128, 128))), x
        x = tl.reshape(x, (16384,))
    tl.store(x_ptr + lane, x + y)


for kernel, names in ((double, ("x_ptr",)), (spill, ("x_ptr", "y_ptr"))):
    signature = dict.fromkeys(names, "*fp32")
    case = CompileCase(
        name="bad", kernel=kernel, signature=signature, num_warps=1,
        bytes_per_pixel=1, floor_bytes_per_pixel=1,
    )
    print(compile_case(case, 80))
"""


@pytest.mark.slow
def test_the_compiler_is_read_right(tmp_path, monkeypatch):
    """A kernel in double precision and one that spills are recognised from their machine code."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    script = tmp_path / "bad.py"
    script.write_text(BAD_KERNELS)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    double, spill = done.stdout.splitlines()
    assert "double_precision=True" in double
    assert "stack_bytes=0" not in spill
