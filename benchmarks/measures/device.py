"""The verb `bench device`: what a device is, how fast it copies, whether every operation is right.

Each operation of `bench kernels` runs once at a small size, against float64. `--share 2 4` takes
the second quarter of them, so that several processes fill Triton's cache side by side. Every row is
written when it is known.
"""

import json
import time
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from ..timing import bandwidth, choose_device, circumstances
from .kernel_cases import cases
from .kernel_gate import gate

SIZE = (2, 96, 128)


def device(arguments: list[str]) -> int:
    """Run `warpseg bench device`; 1 where an operation is wrong."""
    return tyro.cli(measure, args=arguments, prog="warpseg bench device")


def measure(
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    share: tuple[int, int] = (1, 1),
    size: tuple[int, int, int] = SIZE,
    out: Path | None = None,
) -> int:
    """Say what the device is, and run every operation once against float64.

    Args:
        device: auto takes the GPU if there is one
        share: which part of the operations, of how many parts
        size: batch, height and width of the operations' inputs
        out: file that gets one JSON row a line, each as soon as it is known
    """
    part, parts = share
    if not 1 <= part <= parts:
        raise ValueError(f"--share takes a part and their number, such as 1 4; got {part} {parts}")
    chosen = choose_device(device)
    rows = [_facts(chosen)] if part == 1 else []
    _tell(rows, out)
    wrong = 0
    for case in list(cases(chosen, size, None))[part - 1 :: parts]:
        begin = time.perf_counter()
        fault = _fault(case)
        wrong += bool(fault)
        seconds = round(time.perf_counter() - begin, 3)
        _tell([{"op": case.op, "size": case.size, "seconds": seconds, "fault": fault}], out)
    return 1 if wrong else 0


def _facts(chosen: torch.device) -> dict[str, Any]:
    speed = bandwidth(chosen)
    facts = circumstances(chosen) | {"copy_gb_per_s": speed and round(speed / 1e9, 1)}
    if chosen.type == "cuda":
        free, total = torch.cuda.mem_get_info(chosen)
        facts |= {"free_gib": round(free / 2**30, 1), "total_gib": round(total / 2**30, 1)}
    return facts


def _fault(case: Any) -> str:
    """Return what is wrong with an operation, also where it does not run at all: the others are
    still looked at."""
    try:
        return gate(case)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]


def _tell(rows: list[dict[str, Any]], out: Path | None) -> None:
    for row in rows:
        line = json.dumps(row)
        print(line, flush=True)
        if out is not None:
            with out.open("a") as file:
                file.write(line + "\n")
