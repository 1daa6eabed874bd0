"""Every kernel compiles for GPUs that are not here: no spills, no doubles, as the report says.

The default run holds the committed report to the kernels' sources, by hash, and to a budget for
each kernel, holds the report's cases to what launches compile, and compiles a few; the slow run
compiles all. `warpseg bench kernels --compile` writes the report, once with each Triton.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import triton
from warpseg.benchmarks import compiled_page
from warpseg.benchmarks.measures.kernels import compiled
from warpseg.kernels.compile import ARCHITECTURES
from warpseg.kernels.machine_code import PIPES, read_sass
from warpseg.kernels.views import cutmix_triton

BUDGET = Path(__file__).parent / "budget.txt"
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
        if triton.__version__ in report["triton"]:
            row = rows[result.name][triton.__version__][str(result.architecture)]
            now = {key: value for key, value in dataclasses.asdict(result).items() if key in row}
            assert now == row, f"{name} differs from the report: {REMEDY}"


FEW = [
    ("cross_entropy-plain/C21", 80),
    ("consistency_kl/C19-s4", 90),
    ("dynamic_ce-plain/C21-s8", 90),
    ("pseudo_label/C19", 100),
    ("quantile-digit/pass0", 80),
    ("cutmix/gradient-C19-s4", 90),
    ("to_rows/C19", 100),
    ("strong_view/normalize", 80),
]


def test_the_report_is_of_these_kernels(report):
    assert [case["name"] for case in report["cases"]] == list(CASES), REMEDY
    for row in report["cases"]:
        case = CASES[row["name"]]
        assert row["key"] == compiled.source_key(case), f"{case.name} has changed: {REMEDY}"
        assert row["bytes_per_pixel"] == case.bytes_per_pixel, REMEDY
        assert row["floor_bytes_per_pixel"] == case.floor_bytes_per_pixel, REMEDY
        assert set(report["triton"]) <= set(row["compiled"]), REMEDY
        for made in row["compiled"].values():
            assert set(made) == {str(number) for number in ARCHITECTURES}
    page = compiled.REPORT.with_suffix(".md").read_text()
    assert page == compiled.table(report), REMEDY


def test_the_report_has_no_spills_and_no_doubles(report):
    assert compiled.failures(report) == []


def test_bytes_moved_are_at_least_the_floor():
    assert all(case.bytes_per_pixel >= case.floor_bytes_per_pixel >= 0 for case in CASES.values())


def test_both_tritons_are_reported(report):
    """The one of the oldest PyTorch that is supported, and a newer one."""
    assert report["triton"][0] == "3.6.0"
    assert len(report["triton"]) >= 2


def test_no_kernel_is_over_its_budget(report):
    """Instructions of the innermost loop, registers and the loop's barriers, of the worst build."""
    lines = [line.split() for line in BUDGET.read_text().splitlines()]
    budget = {name: tuple(map(int, numbers)) for name, *numbers in lines}
    assert list(budget) == list(CASES), f"one line for each case in {BUDGET.name}"
    for case in report["cases"]:
        for version, made in case["compiled"].items():
            for architecture, row in made.items():
                name = f"{case['name']} on sm_{architecture} by Triton {version}"
                spent = row["inner"], row["registers"], row["inner_barriers"]
                for what, most in zip(spent, budget[case["name"]], strict=True):
                    assert what <= most, f"{name}: {spent} beyond {budget[case['name']]}"


def test_cases_are_what_launches_compile():
    """Types, sizes known to the compiler, constants and warps: by Triton's own launch."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).parent / "launched.py"
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    missing = json.loads(done.stdout.splitlines()[-1])
    assert not missing, f"no launch compiles {list(missing)}: {next(iter(missing.values()))[:2]}"


def test_a_few_compile(report):
    _hold(report, FEW)


@pytest.mark.slow
def test_all_compile(report):
    pairs = [(name, number) for name in CASES for number in ARCHITECTURES]
    _hold(report, [pair for pair in pairs if pair not in FEW])


def test_failures_are_seen(report):
    name, version = report["cases"][0]["name"], report["triton"][0]
    row = report["cases"][0]["compiled"][version]["90"]
    for change, words in (
        ({"stack_bytes": 8}, "8 bytes of stack"),
        ({"double_precision": True}, "double precision"),
    ):
        made = {"cases": [{"name": name, "compiled": {version: {"90": row | change}}}]}
        assert compiled.failures(made) == [f"{name} on sm_90 by Triton {version}: {words}"]


SASS = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/                   LDG.E.U16 R2, [R4.64] ;
        /*0020*/                   FFMA R3, R2, R5, R6 ;
        /*0030*/              @!P0 FMUL R3, R3, R7 ;
        /*0040*/                   MUFU.EX2 R8, R3 ;
        /*0050*/                   BAR.SYNC 0x0 ;
        /*0060*/              @!P1 BRA 0x30 ;
        /*0070*/                   ISETP.GE.AND P2, PT, R9, R10, PT ;
        /*0080*/               @P2 BRA 0x20 ;
        /*0090*/                   EXIT ;
        /*00a0*/                   BRA 0xa0;
        /*00b0*/                   NOP;
"""


def test_a_listing_is_read_by_loops_and_units():
    code = read_sass(SASS)
    assert (code.instructions, code.inner, code.barriers, code.inner_barriers) == (11, 4, 1, 1)
    assert [dict(zip(PIPES, level, strict=True)) for level in code.levels] == [
        {"fp32": 0, "alu": 0, "mufu": 0, "memory": 1, "other": 3},
        {"fp32": 1, "alu": 1, "mufu": 0, "memory": 0, "other": 1},
        {"fp32": 1, "alu": 0, "mufu": 1, "memory": 0, "other": 2},
    ]


def test_the_estimate_is_the_busiest_unit():
    device = compiled_page.Device(
        name="X",
        architecture=90,
        multiprocessors=1,
        gigahertz=1.0,
        bandwidth=1e9,
        clocks=(1, 2, 8, 4, 1),
    )
    work = {"pixels": 1000, "programs": 72, "trips": [10]}
    case = {"work": work, "num_warps": 2, "floor_bytes_per_pixel": 3.0}
    row = {"levels": [[0, 5, 0, 0, 0], [10, 0, 2, 0, 7]]}
    # 10 clocks once, and ten times the 19 that issuing takes: on four schedulers, at 0.72.
    assert compiled_page.estimate(case, row, device) == pytest.approx(0.2 * 50)
    assert compiled_page.floor(case, device) == pytest.approx(3)


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
