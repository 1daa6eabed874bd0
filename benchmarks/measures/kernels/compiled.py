"""The compile report: what every Triton kernel becomes on GPUs that need not be here.

    warpseg bench kernels --compile

compiles each kernel as the recipes launch it, for sm_80, sm_90 and sm_100, with the Triton that is
installed, and writes results/kernels-compiled.json and .md beside this file: instructions of the
innermost loop, registers, shared memory, barriers, spills, bytes moved per pixel against the floor,
double precision, and an estimate of the time (`compiled_page.py`). What another Triton made of the
same sources stays in the report. Each case carries a key of its sources, so that a test can tell,
without compiling, that the committed report is of these kernels.
"""

import ast
import hashlib
import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .... import kernels
from ....kernels.compile import ARCHITECTURES, CompileCase, CompileResult, compile_case
from ...compiled_page import table

REPORT = Path(__file__).parents[2] / "results" / "kernels-compiled.json"
PACKAGE = (__package__ or "").partition(".")[0]
NOT_OF_SOURCES = ("HIDE", "IN_SHARED")


def all_cases() -> list[CompileCase]:
    """Return the cases of every kernel module, in the modules' order of name.

    Raises ValueError where two share a name.
    """
    cases: list[CompileCase] = []
    found = pkgutil.walk_packages(kernels.__path__, f"{kernels.__name__}.")
    for module in sorted(found, key=lambda m: m.name.rpartition(".")[2]):
        loaded = importlib.import_module(module.name)
        if hasattr(loaded, "compile_cases"):
            cases += loaded.compile_cases()
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"compile cases must have names of their own; twice: {', '.join(twice)}")
    return cases


def source_key(case: CompileCase) -> str:
    """Return a hash of all that decides about the machine code, but for the compiler.

    That is the code of the kernel and of every Triton function it reaches (without comments and
    docstrings), the values of the globals it reads, its types, constants, sizes and warps. What is
    chosen by Triton's version, or for its interpreter (`NOT_OF_SOURCES`), is not of the sources.
    """
    parts = [*sorted(_sources(case.kernel, case.constexprs.values()).items())]
    constants = {
        name: getattr(value, "__name__", value)
        for name, value in case.constexprs.items()
        if name not in NOT_OF_SOURCES
    }
    parts += [dict(case.signature), constants, dict(case.sizes), case.num_warps]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _sources(kernel: Any, constants: Iterable[Any]) -> dict[str, str]:
    """Return by name the sources of a Triton function and of those that it reaches."""
    found: dict[str, str] = {}
    left = [kernel, *(value for value in constants if _is_triton(value))]
    while left:
        function = left.pop().fn
        # The module's own name alone: a file that moves keeps its machine code.
        name = f"kernels.{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        if name in found:
            continue
        found[name] = _normal(inspect.getsource(function))
        for used in function.__code__.co_names:
            value = function.__globals__.get(used)
            if used in NOT_OF_SOURCES:
                continue
            if _is_triton(value) and _own(value.fn.__module__):
                left.append(value)
            elif isinstance(value, int | float | str) or type(value).__name__ == "constexpr":
                found[f"{name}:{used}"] = repr(getattr(value, "value", value))
    return found


def _is_triton(value: Any) -> bool:
    return hasattr(value, "fn") and hasattr(value, "arg_names")


def _own(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


def _normal(source: str) -> str:
    tree = ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(tree, ast.FunctionDef)
    if ast.get_docstring(tree) is not None:
        tree.body = tree.body[1:]
    tree.decorator_list = []
    return ast.unparse(tree)


def compile_cases(names: Iterable[tuple[str, int]]) -> Iterator[CompileResult]:
    """Compile the (case, architecture) pairs here, one after another."""
    cases = {case.name: case for case in all_cases()}
    for name, architecture in names:
        yield compile_case(cases[name], architecture)


def compile_apart(names: list[tuple[str, int]], jobs: int) -> list[CompileResult]:
    """Compile pairs in `jobs` processes of their own, where Triton's interpreter is off.

    Raises RuntimeError with the last lines of a process that failed.
    """
    shares = [names[start::jobs] for start in range(jobs) if names[start::jobs]]
    with ThreadPoolExecutor(max(1, len(shares))) as pool:
        parts = list(pool.map(_compile_share, shares))
    by_pair = {(result.name, result.architecture): result for part in parts for result in part}
    return [by_pair[pair] for pair in names]


def _compile_share(names: list[tuple[str, int]]) -> list[CompileResult]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(names),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise RuntimeError(f"kernels do not compile: {tail}")
    return [CompileResult(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def measure(jobs: int | None = None) -> dict[str, Any]:
    """Compile what the report does not hold yet and return it anew, with what other Tritons made of
    the same cases."""
    import triton

    cases = all_cases()
    held = {case.name: _held(case) for case in cases}
    missing = [name for name, compiled in held.items() if triton.__version__ not in compiled]
    pairs = [(name, architecture) for name in missing for architecture in ARCHITECTURES]
    for result in compile_apart(pairs, jobs or os.cpu_count() or 1):
        made = held[result.name].setdefault(triton.__version__, {})
        made[str(result.architecture)] = {
            name: value
            for name, value in asdict(result).items()
            if name not in ("name", "architecture", "num_warps")
        }
    rows = []
    for case in cases:
        key, compiled = source_key(case), held[case.name]
        rows.append(
            {
                "name": case.name,
                "key": key,
                "num_warps": case.num_warps,
                "bytes_per_pixel": case.bytes_per_pixel,
                "floor_bytes_per_pixel": case.floor_bytes_per_pixel,
                "work": None if case.work is None else asdict(case.work),
                "compiled": dict(sorted(compiled.items())),
            }
        )
    versions = set.intersection(*(set(row["compiled"]) for row in rows))
    return {"triton": sorted(versions), "cases": rows}


def _held(case: CompileCase) -> dict[str, Any]:
    """Return what Tritons made of a case, by version, where the committed report is of these
    sources."""
    row = _earlier().get(case.name, {})
    return row["compiled"] if row.get("key") == source_key(case) else {}


def _earlier() -> dict[str, Any]:
    """Return the rows of the committed report by name."""
    if not REPORT.is_file():
        return {}
    cases = json.loads(REPORT.read_text())["cases"]
    return {row["name"]: row for row in cases if "work" in row}


def failures(report: dict[str, Any]) -> list[str]:
    """Return one line for every kernel that spills registers or computes in double precision."""
    return [
        f"{case['name']} on sm_{architecture} by Triton {version}: {what}"
        for case in report["cases"]
        for version, compiled in case["compiled"].items()
        for architecture, row in compiled.items()
        for what in (
            f"{row['stack_bytes']} bytes of stack" if row["stack_bytes"] else "",
            "double precision" if row["double_precision"] else "",
        )
        if what
    ]


def write(report: dict[str, Any], path: Path = REPORT) -> None:
    """Write the report as JSON at `path` and as a table beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(report))


if __name__ == "__main__":
    compiled = compile_cases((name, architecture) for name, architecture in json.load(sys.stdin))
    print(json.dumps([asdict(result) for result in compiled]))
