"""Compile the Triton kernels for a GPU that is not here, and read what the compiler made of them.

Every kernel module lists its kernels at the sizes of the recipes in `compile_cases()`. The numbers
come from the machine code itself: registers, stack (spills live there) and shared memory from the
resource table, instructions from the listing, double precision from the PTX. A kernel is compiled
as its launches specialise it: Triton itself says which arguments it takes as multiples of 16 or as
the constant 1. Triton's interpreter must be off (TRITON_INTERPRET).
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .dispatch import INTERPRETED
from .machine_code import Code, read_sass

ARCHITECTURES = (80, 90, 100)
"""Compute capabilities that every kernel must compile for: A100, H100 and H200, B200."""


@dataclass(frozen=True, kw_only=True)
class CompileCase:
    """One kernel with representative arguments.

    signature: type of each runtime parameter, as Triton writes it ("*bf16", "*u8", "i32", "fp32").
    constexprs: value of each compile-time parameter.
    sizes: values of integers as a recipe launches them, where the kernel is specialised on them;
    others count as odd.
    bytes_per_pixel: device memory the kernel reads and writes, per pixel of its full-resolution
    map, by arithmetic; floor_bytes_per_pixel: the least that the operation can move (each input
    once, each output once).
    work: how often a recipe's launch runs each part of the code, for an estimate of its time.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    num_warps: int = 4
    bytes_per_pixel: float
    floor_bytes_per_pixel: float
    work: "Work | None" = None


@dataclass(frozen=True)
class Work:
    """One launch, or the launches that belong together, on a recipe's batch.

    pixels: of the full-resolution maps. programs: of all these launches. trips: how often a program
    runs each loop around its innermost one, the outermost first, each within the one before.
    """

    pixels: int
    programs: int
    trips: tuple[float, ...] = ()


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
    barriers: int
    inner: int
    inner_barriers: int
    levels: list[list[int]]
    double_precision: bool


class _Pointer:
    """An aligned tensor that is not there, as Triton looks at arguments."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    @staticmethod
    def data_ptr() -> int:
        """Return a multiple of 16, as PyTorch's allocations have."""
        return 0


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
        code: Code = read_sass(_cuobjdump("-sass", file.name))
    return CompileResult(
        name=case.name,
        architecture=architecture,
        num_warps=case.num_warps,
        registers=_number(r"REG:(\d+)", usage),
        stack_bytes=_number(r"STACK:(\d+)", usage),
        shared_bytes=compiled.metadata.shared + _static_shared(usage, architecture),
        instructions=code.instructions,
        barriers=code.barriers,
        inner=code.inner,
        inner_barriers=code.inner_barriers,
        levels=code.levels,
        double_precision=re.search(r"\.f64\b", compiled.asm["ptx"]) is not None,
    )


def specialised(case: CompileCase) -> tuple[dict[str, str], dict[tuple, Any], dict[tuple, Any]]:
    """Return signature, constants and attributes that a launch with these arguments compiles with.

    Constants and attributes are by the position of their parameter. Raises ValueError where the
    case does not name the kernel's parameters.
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import make_backend
    from triton.runtime.jit import create_function_from_signature

    kernel = case.kernel
    missing = set(kernel.arg_names) ^ (set(case.signature) | set(case.constexprs))
    if missing:
        raise ValueError(f"case {case.name}: parameters do not match the kernel: {sorted(missing)}")
    backend = make_backend(GPUTarget("cuda", ARCHITECTURES[0], 32))
    binder = create_function_from_signature(kernel.signature, kernel.params, backend)
    arguments = {name: _argument(case, name) for name in kernel.arg_names}
    bound, specialization, options = binder(**arguments, num_warps=case.num_warps)
    extra = {"num_warps": case.num_warps, "debug": False}
    packed = kernel._pack_args(backend, extra, bound, specialization, options)
    return packed[1], packed[2], packed[3]


def _argument(case: CompileCase, name: str) -> Any:
    """Return what a launch would hand over for one parameter."""
    if name in case.constexprs:
        return case.constexprs[name]
    kind = case.signature[name]
    if kind.startswith("*"):
        return _Pointer(_TORCH_NAMES[kind[1:]])
    if kind.startswith("fp"):
        return 0.5
    return case.sizes.get(name, 2**40 + 1 if kind == "i64" else 7)


_TORCH_NAMES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
    "u8": "uint8",
    "i1": "bool",
    "i32": "int32",
    "i64": "int64",
}


def _compiled(case: CompileCase, architecture: int) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, attributes = specialised(case)
    return triton.compile(
        ASTSource(case.kernel, signature, constants, attributes),
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


def _static_shared(usage: str, architecture: int) -> int:
    """Return the bytes that the code itself declares, beside those that a launch asks for."""
    # From sm_90 on the system has the first 1024 of a kernel that uses any.
    reserved = 1024 if architecture >= 90 else 0
    return max(0, _number(r"SHARED:(\d+)", usage) - reserved)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"cuobjdump printed no {pattern}: {text[:200]!r}")
    return int(found.group(1))
