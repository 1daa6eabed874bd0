"""The verb `bench device`: what a device is, how fast it copies, whether every operation is right.

Each operation of `bench kernels` runs once at a small size, against float64. `--share 2 4` takes
the second quarter of them, so that several processes fill Triton's cache side by side. Every row is
written when it is known.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch

from ..timing import bandwidth, choose_device, circumstances, fault_of
from ..words.given import Given
from ..words.kernels import DeviceSettings
from .kernels.cases import cases
from .kernels.gate import gate


def device(given: Given) -> int:
    """Run `warpseg bench device`; 1 where an operation is wrong."""
    return measure(given.settings)


def measure(settings: DeviceSettings) -> int:
    """Say what the device is, and run every operation once against float64.

    Raises ValueError for a share that there is not.
    """
    part, parts = settings.share
    if not 1 <= part <= parts:
        raise ValueError(f"--share takes a part and their number, such as 1 4; got {part} {parts}")
    size, out = settings.size, settings.out
    chosen = choose_device(settings.device)
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
        return fault_of(error)


def _tell(rows: list[dict[str, Any]], out: Path | None) -> None:
    for row in rows:
        line = json.dumps(row)
        print(line, flush=True)
        if out is not None:
            with out.open("a") as file:
                file.write(line + "\n")
