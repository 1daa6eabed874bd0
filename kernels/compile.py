"""Compile the Triton kernels for a GPU that is not here, and read what the compiler made of them.

Every kernel module lists its kernels at the sizes of the recipes in `compile_cases()`. The numbers
come from the machine code itself: registers, stack (spills live there) and shared memory from the
resource table, double precision from the PTX. Triton's interpreter must be off (TRITON_INTERPRET).
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .dispatch import INTERPRETED

ARCHITECTURES = (80, 90, 100)
"""Compute capabilities that every kernel must compile for: A100, H100 and H200, B200."""


@dataclass(frozen=True, kw_only=True)
class CompileCase:
    """One kernel with representative arguments.

    signature: type of each runtime parameter, as Triton writes it ("*bf16", "*u8", "i32", "fp32").
    constexprs: value of each compile-time parameter.
    bytes_per_pixel: device memory the kernel reads and writes, per pixel of its full-resolution
    map, by arithmetic; floor_bytes_per_pixel: the least that the operation can move (each input
    once, each output once).
    aligned: pointers known to be multiples of 16 bytes, as PyTorch's allocations are.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    bytes_per_pixel: float
    floor_bytes_per_pixel: float
    aligned: bool = True


@dataclass(frozen=True, kw_only=True)
class CompileResult:
    """What one case became on one architecture (bytes; registers per thread)."""

    name: str
    architecture: int
    num_warps: int
    registers: int
    stack_bytes: int
    shared_bytes: int
    instructions: int
    double_precision: bool


def compile_case(case: CompileCase, architecture: int) -> CompileResult:
    """Compile one case for `sm_<architecture>`, without a GPU.

    Raises RuntimeError under Triton's interpreter and where Triton's own tools are missing.
    """
    if INTERPRETED:
        raise RuntimeError("kernels cannot be compiled under TRITON_INTERPRET=1: unset it")
    compiled = _compiled(case, architecture)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _cuobjdump("-res-usage", file.name)
        code = _cuobjdump("-sass", file.name)
    return CompileResult(
        name=case.name,
        architecture=architecture,
        num_warps=case.num_warps,
        registers=_number(r"REG:(\d+)", usage),
        stack_bytes=_number(r"STACK:(\d+)", usage),
        shared_bytes=compiled.metadata.shared,
        instructions=len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+\S", code, re.MULTILINE)),
        double_precision=re.search(r"\.f64\b", compiled.asm["ptx"]) is not None,
    )


def _compiled(case: CompileCase, architecture: int) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = case.kernel.arg_names
    missing = set(names) ^ (set(case.signature) | set(case.constexprs))
    if missing:
        raise ValueError(f"case {case.name}: parameters do not match the kernel: {sorted(missing)}")
    signature = {name: case.signature.get(name, "constexpr") for name in names}
    alignment = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if case.aligned and signature[name].startswith("*")
    }
    return triton.compile(
        ASTSource(case.kernel, signature, dict(case.constexprs), alignment),
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": case.num_warps, "enable_fp_fusion": True},
    )


def _cuobjdump(option: str, file: str) -> str:
    import triton

    tool = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.is_file():
        raise RuntimeError(f"Triton has no {tool}: pip install --force-reinstall triton")
    done = subprocess.run([tool, option, file], capture_output=True, text=True, check=True)
    return done.stdout


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"cuobjdump printed no {pattern}: {text[:200]!r}")
    return int(found.group(1))
