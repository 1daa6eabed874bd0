"""Read a kernel's machine code: its loops, and which unit of an SM each instruction keeps busy."""

import re
from dataclasses import dataclass, field

PIPES = ("fp32", "alu", "mufu", "memory", "other")
"""Float arithmetic; integers, comparisons and selections; special functions and conversions;
loads, stores, shuffles and atomics; branches, barriers and moves of constants."""

_OPERATIONS = {
    "fp32": "FADD FMUL FFMA FADD32I FMUL32I FFMA32I FFMA2 FADD2 FMUL2",
    "alu": "IADD IADD3 IMAD LEA LOP3 SHF SHL SHR ISETP FSETP FSEL FMNMX FMNMX3 SEL IMNMX VIMNMX "
    "VIMNMX3 VIADD VIADDMNMX IABS PRMT PLOP3 BMSK SGXT FCHK FSET HADD2 HFMA2 HMUL2 HSETP2 HMNMX2 "
    "ISCADD IMUL LOP POPC FLO BREV VOTE VOTEU HSET2 F2FP P2R R2P I2FP",
    "mufu": "MUFU F2I I2F F2F FRND I2I I2IP",
    "memory": "LDG STG LDS STS LDL STL LD ST ATOM ATOMG ATOMS RED REDG REDUX SHFL LDGSTS LDSM STSM "
    "LDC CCTL MATCH",
}
_PIPE = {name: pipe for pipe, names in _OPERATIONS.items() for name in names.split()}
_LINE = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)([^;]*);", re.M)
_TARGET = re.compile(r"0x([0-9a-f]+)\s*$")


@dataclass(frozen=True, kw_only=True)
class Code:
    """What a kernel consists of.

    levels: instructions by unit (`PIPES`) outside of loops, then inside each loop of the nest
    around the longest innermost loop, from the outermost to that one, each without the next.
    barriers: instructions that wait for the other warps; inner_barriers: those in the last level.
    """

    instructions: int
    barriers: int
    inner_barriers: int
    levels: list[list[int]] = field(default_factory=list)

    @property
    def inner(self) -> int:
        """Instructions of one pass of the innermost loop, or of all the kernel without loops."""
        return sum(self.levels[-1])


def read_sass(text: str) -> Code:
    """Read the listing of one kernel that `cuobjdump -sass` prints."""
    lines = [(int(at, 16), name, rest) for at, name, rest in _LINE.findall(text)]
    while lines and lines[-1][1] == "NOP":
        lines.pop()
    nest = _nest(_loops(lines))
    levels: list[dict[str, int]] = [dict.fromkeys(PIPES, 0) for _ in range(1 + len(nest))]
    barriers = inner_barriers = 0
    for at, name, _ in lines:
        depth = sum(first <= at <= last for first, last in nest)
        levels[depth][_PIPE.get(name, "other")] += 1
        if name == "BAR":
            barriers += 1
            inner_barriers += depth == len(nest)
    return Code(
        instructions=len(lines),
        barriers=barriers,
        inner_barriers=inner_barriers if nest else barriers,
        levels=[list(level.values()) for level in levels],
    )


def _loops(lines: list[tuple[int, str, str]]) -> list[tuple[int, int]]:
    """Return first and last address of what each jump back repeats; a jump to itself is an end."""
    loops: dict[int, int] = {}
    for at, name, rest in lines:
        target = _TARGET.search(rest) if name == "BRA" else None
        if target and int(target.group(1), 16) < at:
            first = int(target.group(1), 16)
            loops[first] = max(at, loops.get(first, 0))
    return sorted(loops.items())


def _nest(loops: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest innermost loop and those around it, the outermost first."""
    innermost = [
        loop
        for loop in loops
        if not any(loop[0] <= other[0] and other[1] <= loop[1] for other in loops if other != loop)
    ]
    if not innermost:
        return []
    chosen = max(innermost, key=lambda loop: loop[1] - loop[0])
    around = [loop for loop in loops if loop[0] <= chosen[0] and chosen[1] <= loop[1]]
    return sorted(around, key=lambda loop: loop[0] - loop[1])
